"""Experiments: shipped configs load, and what is misspelt is named."""

import json
from pathlib import Path

import pytest

from aver_jax.config import (
    base_config,
    check_fields,
    load_config,
    override,
    parse_argument,
    to_json,
)
from aver_jax.errors import UserError
from aver_jax.runs.run_folder import model_of


@pytest.mark.parametrize("size", ["demo", "Ti", "S", "B"])
@pytest.mark.parametrize("dataset", ["synthetic", "crema_d", "ravdess", "folder"])
def test_shipped_configs_describe_a_model(size, dataset):
    config = load_config(f"timesformer.py:size={size},dataset={dataset},fold=2")
    model = model_of(config, num_classes=6)
    assert model.image_size == config.data.image_size
    assert config.data.fold == 2
    json.dumps(to_json(config))


def test_a_config_is_found_by_path_and_by_shipped_name(tmp_path):
    shipped = Path(__file__).parents[1] / "configs/timesformer.py"
    copy = tmp_path / "mine.py"
    copy.write_text(shipped.read_text())
    assert to_json(load_config(str(copy))) == to_json(load_config("timesformer"))
    with pytest.raises(UserError, match=r"'nothing.py' not found.*timesformer.py"):
        load_config("nothing.py")


def test_fields_that_hang_together_are_set_together():
    config = override(load_config("timesformer.py"), ["--config.data.num_frames=6"])
    assert config.model.num_frames == 6
    assert to_json(config)["model"]["num_frames"] == 6


@pytest.mark.parametrize("argument", ["size", "size=demo,size=B", "colour=red", "fold=one"])
def test_an_argument_that_is_not_understood_is_refused(argument):
    with pytest.raises(UserError, match="config argument"):
        load_config(f"timesformer.py:{argument}")


def test_an_argument_takes_the_type_of_its_default():
    parsed = parse_argument("fold=3,lr=0.5,flip=true", fold=1, lr=1.0, flip=False, size="B")
    assert (parsed.fold, parsed.lr, parsed.flip, parsed.size) == (3, 0.5, True, "B")
    with pytest.raises(UserError, match="flip=true or flip=false"):
        parse_argument("flip=yes", flip=False)


def test_a_config_file_with_a_misspelt_field_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from aver_jax.config import base_config\n"
        "def get_config(arg=None):\n"
        "    config = base_config()\n"
        "    config.optimizer.learning_rat = 1.0\n"
        "    return config\n"
    )
    with pytest.raises(UserError, match=r"unknown config field 'optimizer.learning_rat'"):
        load_config(str(file))
    config = base_config()
    config.batchsize = 3
    with pytest.raises(UserError, match=r"did you mean batch_size\?"):
        check_fields(config)


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("def get_config(arg=None):\n    return unknown\n", "line 2: NameError"),
        ("def get_config(arg=None) return 1", "SyntaxError"),
        ("def get_config(arg=None):\n    return 1\n", "base_config"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(arg=None):\n    return ConfigDict({'seed': 1})\n",
            "lacks batch_size",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "from aver_jax.config import base_config\n"
            "def get_config(arg=None):\n    config = base_config()\n"
            "    config.optimizer = ConfigDict({'lr': 0.1})\n    return config\n",
            r"lacks optimizer.accumulate, .* and 3 more; begin with base_config\(\)",
        ),
    ],
)
def test_a_config_file_that_fails_is_named(tmp_path, text, clue):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError, match=clue):
        load_config(str(file))


def test_a_file_that_is_no_program_is_refused(tmp_path):
    (file := tmp_path / "notes.md").write_text("# notes")
    with pytest.raises(UserError, match="not a Python file"):
        load_config(str(file))


def test_any_subtree_can_be_initialised_from_the_command_line():
    config = override(load_config("timesformer.py"), ["--config.init.blocks=runs/a"])
    assert config.init.blocks == "runs/a"


@pytest.mark.parametrize(
    ("word", "clue"),
    [
        (
            "--config.optimizer.lrate=1",
            r"config.optimizer.lrate; there are: accumulate, b1, b2",
        ),
        ("--config.schedule.nam=1", r"config.schedule.nam; did you mean config.schedule.name\?"),
        ("--config.seed.zzz=1", r"config.seed.zzz; config.seed has no fields$"),
        (
            "--config.frontend.sound.zzz=1",
            r"config.frontend.sound.zzz; config.frontend.sound has no fields$",
        ),
    ],
)
def test_a_word_that_names_no_field_says_which_there_are(word, clue):
    with pytest.raises(UserError, match=f"^unknown config field {clue}"):
        override(load_config("timesformer.py"), [word])
