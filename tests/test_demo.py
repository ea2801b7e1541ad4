"""The guided tour, in its fast form, ends with a report that needs nothing else."""

import pytest

from aver_jax.cli import main


@pytest.mark.slow
def test_the_fast_tour_ends_with_a_self_contained_report(tmp_path, capsys):
    assert main(["demo", "--fast", "--out", str(tmp_path / "tour")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'tour/report.html'}"
    page = (tmp_path / "tour/report.html").read_text()
    for heading in ("Summary", "The corpus", "Training", "Explained clips", "Every step again"):
        assert heading in page
    for heading in ("Face, voice, and both", "Seen and heard"):
        assert heading in page
    # Six clips by the TimeSformer, three of them again by the MRPN.
    assert page.count("data:video/mp4") == 9
    assert "http://" not in page.replace("http://www.w3.org", "")
    # A second tour replaces the first; a folder of anything else is left alone.
    assert main(["demo", "--fast", "--out", str(tmp_path)]) == 2
    assert "choose another --out" in capsys.readouterr().err
