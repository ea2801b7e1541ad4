"""`aver compile` on chips that are not here; one clear line where it cannot."""

import importlib.util
import json

import pytest

from aver_jax.cli import main

CHIPS = importlib.util.find_spec("libtpu") and importlib.util.find_spec("jax_plugins")
SMALL = [
    "--config", "timesformer.py:size=demo", "--config.model.depth=1", "--config.model.width=24",
    "--config.model.num_heads=2", "--config.data.image_size=32", "--config.model.stem=0",
    "--config.data.num_frames=2", "--config.batch_size=4",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chip", "b200"], "--chip is 'b200'; expected one of h100"),
        (["--chip", "h100", "--top", "0"], "--top is 0; expected at least 1"),
    ],
)
def test_errors_are_one_line(words, message, capsys):
    assert main(["compile", *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(bool(CHIPS), reason="the extra chips is installed")
def test_without_the_compilers_it_names_the_extra(capsys):
    assert main(["compile", *SMALL, "--chip", "h100"]) == 2
    error = capsys.readouterr().err
    assert "aver_jax[chips]" in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not CHIPS, reason="needs the extra chips (make chips)")
@pytest.mark.parametrize(
    ("chip", "kind"), [("h100", "bound"), ("h100:2", "bound"), ("v5e:2x2", "estimate")]
)
@pytest.mark.parametrize("program", ["train", "inference", "relevance"])
def test_a_tiny_model_is_compiled_for_chips_that_are_not_here(
    chip, kind, program, tmp_path, capsys
):
    words = ["--chip", chip, "--program", program, "--json", str(tmp_path / "a.json")]
    assert main(["compile", *SMALL, *words]) == 0
    assert "not a measurement" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["kind"] == kind
    assert found["fits"]
    assert 0 < found["floor"] < found["seconds"]
    assert 0.5 < found["done"] / found["needed"] < 2
    kinds = {each["kind"] for each in found["collectives"]}
    assert ("all-reduce" in kinds) == (program == "train" and found["devices"] > 1)
