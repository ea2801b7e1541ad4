"""The synthetic dataset and the test clips of the small run that `tests/conftest.py` makes."""

import pytest

from aver_jax.input import Dataset, open_dataset, split


@pytest.fixture(scope="session")
def dataset(synthetic_dataset) -> Dataset:
    return open_dataset(synthetic_dataset)


@pytest.fixture(scope="session")
def test_rows(dataset):
    return split(dataset, "synthetic_fifths", 1).test
