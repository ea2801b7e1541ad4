"""What is wrong with an experiment is one line before any data is read."""

import dataclasses

import jax
import pytest

from aver_jax.config import base_config, load_config, override, to_json
from aver_jax.errors import UserError
from aver_jax.frontend.spectrogram import Settings
from aver_jax.modality import Modality
from aver_jax.models.model import Model
from aver_jax.training.preflight import (
    changed_fields,
    check_modalities,
    check_settings,
    check_statistics,
)


def make_config(*modalities):
    config = base_config()
    config.data.path = "DATA"
    config.data.modalities = modalities
    return config


def test_pmap_trains_in_one_process(tmp_path, monkeypatch):
    config = make_config("frames")
    config.parallel = "pmap"
    check_settings(config, tmp_path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="'pmap', with 2 processes; it trains in one"):
        check_settings(config, tmp_path)
    config.parallel = "shard_map"
    check_settings(config, tmp_path)


def test_the_spectrograms_defaults_are_the_front_ends_own():
    assert to_json(base_config().frontend.spectrogram) == dataclasses.asdict(Settings())


@pytest.mark.parametrize("modalities", [("frames",), ("audio",), ("frames", "audio")])
def test_settings_are_checked_with_the_modalities_of_the_config(tmp_path, modalities):
    check_settings(make_config(*modalities), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frontend.spectrogram.hop", 0, r"config.frontend.spectrogram.hop is 0; expected"),
        ("frontend.spectrogram.scale", "mel", r"config.frontend.spectrogram.scale is 'mel'"),
        ("frontend.sound", {"gain": -3.0}, r"config.frontend.sound.gain is -3.0; expected 0"),
        ("frontend.sound", {"pitch": 1.0}, r"config.frontend.sound has unknown fields pitch"),
        ("data.modalities", ("face",), r"config.data.modalities is face; expected one or more of"),
        ("data.modalities", (), r"config.data.modalities is empty; expected one or more of"),
    ],
)
def test_wrong_settings_of_sound_are_one_line(tmp_path, field, value, message):
    config = make_config("audio")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"^{message}") as raised:
        check_settings(config, tmp_path)
    assert "\n" not in str(raised.value)


def test_fields_of_sound_can_be_set_and_overridden(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from aver_jax.config import base_config\n"
        "def get_config(arg):\n"
        "    config = base_config()\n"
        "    config.frontend.sound.gain = 6.0\n"
        "    config.frontend.spectrogram.hop = 128\n"
        "    return config\n"
    )
    config = load_config(str(file))
    config = override(config, ["--config.frontend.sound.gain=3.0"])
    assert (config.frontend.sound.gain, config.frontend.spectrogram.hop) == (3.0, 128)


class Listener(Model):
    """A model of sound, as far as its modalities go."""

    modalities = (Modality.AUDIO,)


def test_a_model_of_sound_needs_sound_alone():
    config = make_config("audio")
    check_modalities(config, Listener())
    config.model.name = "listener"
    for given in (("frames",), ("frames", "audio")):
        config.data.modalities = given
        with pytest.raises(UserError, match=r"modalities is .*video; listener needs audio"):
            check_modalities(config, Listener())


def test_batch_norm_needs_two_clips_at_a_time():
    config = make_config("frames")
    config.batch_size, config.optimizer.accumulate = 8, 4
    check_statistics(config, {"params": {}, "batch_stats": {}})
    config.optimizer.accumulate = 8
    with pytest.raises(UserError, match=r"batch_size 8 in 8 microbatches .* is 1 clip at a time"):
        check_statistics(config, {"params": {}, "batch_stats": {}})
    check_statistics(config, {"params": {}})


@pytest.mark.parametrize(("old", "new"), [(["frames"], ["video"]), (["frames", "audio"],) * 2])
def test_runs_of_before_the_modalities_were_renamed_are_the_same_runs(old, new):
    before = {"data": {"modalities": old}, "init": {"model": ""}}
    now = {"data": {"modalities": [str(Modality(name)) for name in new]}, "init": {}}
    assert changed_fields(before, now) == ""
    now["data"]["modalities"] = ["audio"]
    assert changed_fields(before, now).startswith("data.modalities was ")
