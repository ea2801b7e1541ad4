"""The command: light, honest about its jobs, and one line for an error."""

import importlib
import subprocess
import sys

import pytest

from aver_jax.cli import main
from aver_jax.jobs import JOBS


def test_every_listed_job_exists():
    for module, _ in JOBS.values():
        job = importlib.import_module(module)
        assert callable(job.add_arguments)
        assert callable(job.run)


@pytest.mark.parametrize("words", [["--help"], ["prepare", "--help"], ["--version"]])
def test_help_does_not_wait_for_heavy_imports(words):
    # What is imported is what takes the time; a stopwatch would only measure the machine.
    program = (
        "import sys\nfrom aver_jax.cli import main\n"
        f"try: code = main({words!r})\nexcept SystemExit as stop: code = stop.code\n"
        "heavy = {'jax', 'flax', 'numpy', 'cv2', 'av', 'tensorflow_datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: aver", "aver_jax "))


def test_the_help_of_train_lists_the_fields_of_a_config(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for line in ("--config.optimizer.lr=0.001", "--config.data.modalities=('video',)"):
        assert line in text


def test_an_unknown_job_is_named_with_the_known_ones(capsys):
    assert main(["fly"]) == 2
    assert "unknown command 'fly'; choose from prepare, audit, train" in capsys.readouterr().err


def test_python_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "aver_jax", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("aver_jax ")


def test_a_reader_that_goes_away_is_no_error():
    program = f"'{sys.executable}' -m aver_jax --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
