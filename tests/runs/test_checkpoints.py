"""Checkpoints: which are kept, which is best, what a kill leaves, and one line when none fits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.runs.checkpoints import Checkpoints, DamagedCheckpoint, abstract_like

WAR = "validation/war"
LOSS = "validation/loss"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run/checkpoints"


def variables(value: float, width: int = 3) -> dict:
    return {"params": {"head": {"kernel": jnp.full((2, width), value), "bias": jnp.zeros(width)}}}


def save(folder: Path, scores: dict[int, float | None], select: str | None = WAR) -> Checkpoints:
    """Saves one checkpoint per step, of variables that hold the step; None is without metrics."""
    checkpoints = Checkpoints(folder, select)
    for step, score in scores.items():
        metrics = None if score is None else {WAR: score, LOSS: score}
        checkpoints.save(step, {"variables": variables(step)}, metrics)
    checkpoints.close()
    return Checkpoints(folder, select, read_only=True)


def kernel(checkpoints: Checkpoints, step: int) -> np.ndarray:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {"variables": abstract_like(variables(0.0), sharding)}
    return np.asarray(checkpoints.restore(step, abstract)["variables"]["params"]["head"]["kernel"])


def test_the_best_and_the_last_are_kept_and_the_others_deleted(folder):
    saved = save(folder, {3: 0.2, 6: 0.9, 9: 0.4, 12: 0.5})
    assert saved.steps() == [6, 12]
    assert saved.step("best") == 6
    assert saved.step("last") == 12
    assert (kernel(saved, 6) == 6).all()
    assert (kernel(saved, 12) == 12).all()


def test_the_best_is_still_known_after_a_restart(folder):
    save(folder, {3: 0.9, 6: 0.4}).close()
    saved = save(folder, {9: 0.5, 12: 0.6})
    assert saved.steps() == [3, 12]
    assert saved.step("best") == 3


def test_of_equal_scores_the_later_is_best(folder):
    saved = save(folder, {3: 0.5, 6: 0.5, 9: 0.4})
    assert saved.steps() == [6, 9]
    assert saved.step("best") == 6


def test_a_loss_is_best_when_it_is_least(folder):
    saved = save(folder, {3: 2.0, 6: 1.0, 9: 3.0}, select=LOSS)
    assert saved.steps() == [6, 9]
    assert saved.step("best") == 6


def test_without_a_metric_the_last_alone_is_kept_and_is_best(folder):
    saved = save(folder, {3: 0.9, 6: 0.1}, select=None)
    assert saved.steps() == [6]
    assert saved.step("best") == 6


def test_a_checkpoint_saved_on_a_signal_is_kept_while_it_is_the_last(folder):
    saved = save(folder, {3: 0.5, 4: None})
    assert saved.steps() == [3, 4]
    assert saved.step("last") == 4
    assert saved.step("best") == 3
    saved.close()
    saved = save(folder, {6: 0.4})
    assert saved.steps() == [3, 6]
    assert saved.step("best") == 3


def test_before_the_first_validation_the_last_is_the_best_there_is(folder):
    saved = save(folder, {1: None, 2: None})
    assert saved.steps() == [2]
    assert saved.step("best") == 2


def test_by_a_metric_that_was_not_stored_the_last_is_best(folder):
    save(folder, {3: 0.9, 6: 0.5}).close()
    assert Checkpoints(folder, "validation/uar", read_only=True).step("best") == 6


def test_a_checkpoint_is_found_by_its_number(folder):
    assert save(folder, {3: 0.9, 6: 0.5}).step("3") == 3


@pytest.mark.parametrize("which", ["4", "worst", "-3"])
def test_an_unknown_checkpoint_is_named_with_those_there_are(folder, which):
    saved = save(folder, {3: 0.9, 6: 0.5})
    with pytest.raises(UserError, match=rf"no checkpoint '{which}'.*best, last, 3, 6"):
        saved.step(which)


@pytest.mark.parametrize("which", ["best", "last", "3"])
def test_a_run_without_checkpoints_says_so(folder, which):
    with pytest.raises(UserError, match=r"no checkpoint in .*has not saved one yet"):
        Checkpoints(folder, WAR).step(which)


def test_reading_a_folder_that_is_missing_is_an_error_and_makes_none(folder):
    with pytest.raises(UserError, match="run has no checkpoints"):
        Checkpoints(folder, WAR, read_only=True)
    assert not folder.exists()


def test_a_checkpoint_of_another_model_names_the_parameter(folder):
    saved = save(folder, {3: 0.9})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    other = {"variables": abstract_like(variables(0.0, width=5), sharding)}
    message = r"head/bias is \[3\], this model has \[5\] and 1 more; is this the run of another"
    with pytest.raises(UserError, match=message):
        saved.restore(3, other)


def test_a_checkpoint_with_other_parameters_names_the_parameter(folder):
    saved = save(folder, {3: 0.9})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    more = variables(0.0)
    more["params"]["extra"] = jnp.zeros(4)
    with pytest.raises(UserError, match=r"params/extra is missing, this model has \[4\]"):
        saved.restore(3, {"variables": abstract_like(more, sharding)})
    less = variables(0.0)
    del less["params"]["head"]["bias"]
    with pytest.raises(UserError, match=r"head/bias is \[3\], this model has none"):
        saved.restore(3, {"variables": abstract_like(less, sharding)})


def test_what_a_kill_left_half_saved_is_never_read_and_goes_with_the_next_save(folder):
    save(folder, {3: 0.9}).close()
    half = folder / "6.orbax-checkpoint-tmp"
    (half / "variables").mkdir(parents=True)
    (half / "variables/part").write_text("half")
    reader = Checkpoints(folder, WAR, read_only=True)
    assert reader.steps() == [3]
    assert half.exists()
    reader.close()
    reader = save(folder, {6: 0.95})
    assert not half.exists()
    assert (kernel(reader, 6) == 6).all()


def test_items_are_told_apart_and_restored_by_name(folder):
    checkpoints = Checkpoints(folder, WAR)
    average = variables(7.0)["params"]
    training = {"step": jnp.array(3, jnp.int32), "opt_state": (jnp.ones(2), jnp.zeros(()))}
    items = {"variables": variables(3.0), "ema": average, "training": training}
    checkpoints.save(3, items, {WAR: 0.1})
    checkpoints.close()
    reader = Checkpoints(folder, WAR, read_only=True)
    assert reader.has(3, "ema")
    assert not reader.has(4, "ema")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    restored = reader.restore(3, abstract_like(items, sharding))
    assert jax.tree.structure(restored) == jax.tree.structure(items)
    jax.tree.map(np.testing.assert_array_equal, restored, items)
    only = reader.restore(3, {"ema": abstract_like(average, sharding)})
    assert set(only) == {"ema"}


def damage(folder: Path, step: int, item: str = "variables") -> None:
    """Turns one bit of the largest file of an item."""
    files = [path for path in (folder / str(step) / item).rglob("*") if path.is_file()]
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def noise(seed: int) -> dict:
    # Noise is not compressed: the bits of the file are those of the array.
    values = np.random.default_rng(seed).standard_normal((200, 300), np.float32)
    return {"params": {"head": {"kernel": jnp.asarray(values)}}}


def test_a_turned_bit_is_found_and_the_other_steps_are_named(folder):
    checkpoints = Checkpoints(folder, WAR)
    for step, score in ((3, 0.9), (6, 0.5)):
        checkpoints.save(step, {"variables": noise(step)}, {WAR: score})
    checkpoints.close()
    damage(folder, 6)
    reader = Checkpoints(folder, WAR, read_only=True)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {"variables": abstract_like(noise(0), sharding)}
    with pytest.raises(DamagedCheckpoint, match=r"6 is damaged.*; other steps of this run: 3"):
        reader.restore(6, abstract)
    good = reader.restore(3, abstract)["variables"]
    jax.tree.map(np.testing.assert_array_equal, good, noise(3))


def test_a_damaged_step_set_aside_can_be_saved_again(folder):
    save(folder, {3: 0.9, 6: 0.5}).close()
    checkpoints = Checkpoints(folder, WAR)
    moved = checkpoints.set_aside(6)
    assert moved == folder.parent / "damaged_checkpoints/6.0"
    assert checkpoints.steps() == [3]
    checkpoints.save(6, {"variables": variables(6)}, {WAR: 0.5})
    checkpoints.close()
    again = Checkpoints(folder, WAR)
    assert again.steps() == [3, 6]
    assert again.set_aside(6).name == "6.1"
    again.close()
