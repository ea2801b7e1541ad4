"""Cases survive JSON, and patterns find them or list what exists."""

import dataclasses
import json

import pytest

from aver_jax.bench.cases import SETS, SWEPT, TASKS, case_from_dict, matching_cases, timesformer
from aver_jax.bench.cli import with_fields
from aver_jax.bench.worker.inputs import case_config, case_model
from aver_jax.config import check_fields
from aver_jax.errors import UserError
from aver_jax.models.timesformer.timesformer import SIZES

EVERY = [*(case for cases in SETS.values() for case in cases), *SWEPT.values()]


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_a_case_is_the_same_after_json(case):
    again = case_from_dict(json.loads(json.dumps(dataclasses.asdict(case))))
    assert dataclasses.asdict(again) | {"model": {}} == dataclasses.asdict(case) | {"model": {}}
    # Tuples of the model come back as lists, and build the same network.
    if case.model:
        assert case_model(again) == case_model(case)


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_every_task_and_no_name_twice(name):
    cases = SETS[name]
    assert {case.task for case in cases} == set(TASKS)
    assert len({case.name for case in cases}) == len(cases)


def test_configs_of_cases_have_known_fields_only():
    for case in EVERY:
        check_fields(case_config(case))


@pytest.mark.parametrize("size", ["Ti", "S", "B"])
def test_transformers_have_the_sizes_of_the_models(size):
    fields = timesformer(size, "train", 1, 8, 224, "float32").model
    assert {name: fields[name] for name in SIZES[size]} == SIZES[size]


def test_a_pattern_matches_parts_of_names():
    cases = SETS["full"]
    assert [case.task for case in matching_cases(cases, "timesformer_B")] == list(TASKS[:3])
    assert matching_cases(cases, "*_B_train_*") == [cases[0]]


def test_a_pattern_that_matches_nothing_names_what_there_is():
    with pytest.raises(UserError, match=r"no case matches 'nothing'; choose from: timesformer_B"):
        matching_cases(SETS["full"], "nothing")


def test_fields_of_the_model_change_and_the_name_says_so():
    case = with_fields(SETS["full"][0], ["remat=none", "unroll=12"])
    assert (case.model["remat"], case.model["unroll"]) == ("none", 12)
    assert case.name == "timesformer_B_train_8x224_b64_remat=none_unroll=12"
    with pytest.raises(UserError, match="expected FIELD=VALUE"):
        with_fields(case, ["remat"])
