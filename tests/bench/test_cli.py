"""`aver bench` from its flags to its files."""

import json
import subprocess
import sys

import pytest

from aver_jax.bench import results
from aver_jax.cli import main


def test_a_case_end_to_end(tmp_path, capfd, monkeypatch):
    # Measuring them takes longer than the case.
    rates = {"matmul": {"float32": 1e11}, "copy": 1e10}
    monkeypatch.setattr(results, "measured_rates", lambda *_: rates)
    out = tmp_path / "bench"
    words = ["--set", "mini", "--case", "spectrogram", "--repeats", "2", "--out", str(out)]
    assert main(["bench", *words]) == 0
    said = capfd.readouterr()
    assert "| spectrogram_1s_b2 | aver_jax |" in said.out
    assert f"results: {out}" in said.out
    content = json.loads((out / "results.json").read_text())
    side = content["cases"][0]["sides"]["aver_jax"]
    assert side["clips_per_s"] > 0
    assert len(side["rounds"]) == 2
    assert side["floor_gap"] > 0
    assert content["provenance"]["command"] == (
        "aver bench --set mini --case spectrogram --repeats 2 --out bench"
    )


@pytest.mark.slow
def test_sweeps_end_to_end(tmp_path):
    out = tmp_path / "bench"
    words = ["--set", "mini", "--sweep", "batch,devices", "--repeats", "1", "--out", str(out)]
    assert main(["bench", *words]) == 0
    batch, devices = json.loads((out / "sweeps.json").read_text())["sweeps"]
    assert [point["value"] for point in batch["points"]] == [1, 2, 4]
    assert all(point["clips_per_s"] > 0 for point in batch["points"])
    assert [point["value"] for point in devices["points"]] == [1, 2, 4]
    assert all(point["loss_difference"] < 1e-4 for point in devices["points"])
    assert (out / "sweeps.png").is_file()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--case", "nothing"], "no case matches 'nothing'; choose from: timesformer_S_train"),
        (["--sweep", "colour"], "unknown --sweep 'colour'; choose from: batch"),
        (["--repeats", "0"], "--repeats is 0, expected at least 1"),
        (["--data", "nowhere"], "nowhere holds no dataset"),
        (["--sweep", "batch", "--minutes", "2"], "--minutes does not apply to --sweep"),
        (["--model", "nosuch=1"], "--model: timesformer_S_train"),
        (["--model", "depth=abc"], "--model: timesformer_S_train"),
        (["--case", "inference", "--sweep", "batch"], "--case matches none"),
    ],
)
def test_wrong_flags_are_one_line(words, what, capsys):
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1


def test_help_does_not_wait_for_jax():
    program = (
        "import sys\nfrom aver_jax.cli import main\n"
        "try: main(['bench', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(str({'jax', 'numpy', 'matplotlib'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert "--sweep" in done.stdout
