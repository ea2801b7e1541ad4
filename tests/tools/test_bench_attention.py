import jax
import pytest

from tools import bench_attention

TINY = {"time": (3, 5), "space": (2, 7)}


def test_candidates_take_turns_and_are_reported(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench_attention, "PLACES", TINY)
    out = tmp_path / "attention.json"
    arguments = ["--clips", "2", "--dtype", "float32", "--rounds", "3", "--out", str(out)]
    assert bench_attention.main(arguments) == 0
    table = capsys.readouterr().out
    for line in ("| 5 (time) | broadcast |", "| 7 (space) | xla |", "| 7 (space) | explicit |"):
        assert line in table
    assert '"speedup"' in out.read_text()


def test_a_wrong_candidate_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_attention, "PLACES", TINY)
    monkeypatch.setattr(bench_attention, "broadcast", lambda q, k, v: jax.numpy.zeros_like(v))
    with pytest.raises(ValueError, match="gradients of broadcast differ"):
        bench_attention.measure("time", 2, "float32", 3)


def test_many_tokens_are_not_multiplied_out():
    assert "broadcast" not in bench_attention.candidates(197, "float32")
