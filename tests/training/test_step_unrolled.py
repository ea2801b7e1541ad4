"""Training without a loop over layers: same numbers and checkpoints, no stacks in the step."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from aver_jax.bench import cases
from aver_jax.bench.worker.inputs import case_config, case_model, noisy_variables, synthetic_batch
from aver_jax.models.timesformer.unstacked import Layers
from aver_jax.runtime.data_parallel import make_mesh, replicated
from aver_jax.training.settings import StepSettings
from aver_jax.training.state import TrainState
from aver_jax.training.step import train_step

DEPTH = 3
STEPS = 3


def case_of(unroll: int, **fields) -> cases.Case:
    case = cases.timesformer("mini", "train", 4, 2, 32, "float32")
    model = case.model | {"depth": DEPTH, "unroll": unroll, **fields}
    return dataclasses.replace(case, model=model)


def train_step_of(
    unroll: int,
    mapping: str = "shard_map",
    devices: int = 1,
    freeze: tuple[str, ...] = ("blocks/mlp", "*/attn/qkv/bias"),
):
    config = case_config(case_of(unroll))
    # Of Adam's steps each is as large as the rate, so gradients of another size would go unseen.
    config.optimizer.update({"name": "sgd", "momentum": 0.9, "lr": 0.1, "accumulate": 2})
    config.ema_decay = 0.9
    config.freeze = freeze
    config.parallel = mapping
    mesh = make_mesh(devices)
    return train_step(case_model(case_of(unroll)), StepSettings.from_config(config), 10, mesh), mesh


def trained(unroll: int, together: bool = False, **how) -> tuple[TrainState, TrainState]:
    """Returns the state after some steps, by one dispatch if `together`, and its shapes."""
    train, mesh = train_step_of(unroll, **how)
    state = train.init(noisy_variables(case_of(unroll)), 0)
    state = jax.device_put(state, replicated(mesh))
    batches = [synthetic_batch(case_of(unroll), seed) for seed in range(STEPS)]
    if together:
        stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
        state, _ = train.compiled(None, STEPS)(state, stacked)
    else:
        for batch in batches:
            state, _ = train.step(state, batch)
    return state, jax.eval_shape(train.init, train.shapes, 0)


@pytest.fixture(scope="module")
def looped():
    return trained(unroll=1)


def assert_same_items(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), found, expected
    )


@pytest.mark.parametrize(
    "how",
    [
        {"unroll": DEPTH},
        {"unroll": DEPTH + 2, "together": True, "devices": 2},
        {"unroll": DEPTH, "mapping": "pmap", "devices": 2},
    ],
    ids=["shard_map", "steps of one dispatch", "pmap"],
)
def test_checkpoints_hold_what_those_of_a_loop_do(looped, how):
    assert_same_items(trained(**how)[0].items(), looped[0].items())


def test_all_layers_may_be_frozen():
    found, expected = (trained(unroll, freeze=("blocks",))[0].items() for unroll in (DEPTH, 1))
    assert_same_items(found, expected)


def test_a_state_comes_back_from_its_checkpoint(looped):
    state, shapes = trained(unroll=DEPTH)
    assert type(state.variables["params"]["blocks"]) is Layers
    back = TrainState.from_items(state.items(), state.seed, shapes)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    # Evaluation applies stacks.
    structure = jax.tree.structure(looped[0].evaluation_variables())
    assert jax.tree.structure(state.evaluation_variables()) == structure
    # A loop's checkpoint fits as well.
    other = TrainState.from_items(looped[0].items(), state.seed, shapes)
    jax.tree.map(np.testing.assert_array_equal, other.items(), looped[0].items())


@pytest.mark.parametrize(("unroll", "remat"), [(1, "none"), (DEPTH, "none"), (DEPTH, "dots")])
def test_no_stack_is_left_in_an_unrolled_step(unroll, remat):
    case = case_of(unroll, remat=remat)
    train = train_step(
        case_model(case), StepSettings.from_config(case_config(case)), 10, make_mesh(devices=1)
    )
    state = jax.eval_shape(train.init, train.shapes, 0)
    text = train.step.jitted.lower(state, synthetic_batch(case), None).compile().as_text()
    kernels = [x for x in jax.tree.leaves(train.shapes["params"]["blocks"]) if x.ndim == 3]
    shapes = {",".join(map(str, kernel.shape)) for kernel in kernels}
    assert len(shapes) == 4  # qkv, proj and temporal_fc, fc1, fc2
    stacks = {shape for shape in shapes if re.search(rf"f32\[{shape}\]", text)}
    assert stacks == (shapes if unroll == 1 else set())
