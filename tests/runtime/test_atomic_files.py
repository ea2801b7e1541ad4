"""Files appear whole or not at all."""

import pytest

from aver_jax.runtime.atomic_files import csv_text, whole, write_whole


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "made" / "table.csv"
    write_whole(path, "old")

    def fail():
        with whole(path) as temporary:
            assert temporary.suffix == ".csv"
            temporary.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_csv_quotes_what_needs_it():
    assert csv_text([("a,b", 1 / 3, None)]) == '"a,b",0.333333,\n'
