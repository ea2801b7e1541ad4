"""`aver explain`: one page per call with every class and method, and one line for bad requests."""

import json
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.prediction import predictor as predictor_module
from aver_jax.prediction.predictor import Predictor
from aver_jax.relevance import explain, knows_class
from data_prep.media import decode, write_clip
from tools import convert_checkpoint

REFERENCE = Path(__file__).parents[1] / "reference/timesformer_divided_space_time.npz"


@pytest.fixture(scope="module")
def wall(tmp_path_factory, clips):
    """A clip without a face."""
    path = tmp_path_factory.mktemp("wall") / "wall.mp4"
    media = decode(clips[0])
    frames = [np.full((96, 96, 3), 90 + i, np.uint8) for i in range(len(media.frames))]
    write_clip(path, frames, 10, media.pcm, 16_000)
    return path


def test_page_and_files_of_predicted_and_chosen_classes(run, clips, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(run), *map(str, clips), "--methods", "tibav,rollout_min,saliency"]
    assert main(["explain", *words, "--target", "HAP,SAD", "--out", str(out)]) == 0
    capsys.readouterr()
    page = (out / "index.html").read_text()
    # Nothing outside is fetched or linked.
    links = re.findall(r'(?:src|href|srcset)="([^"]{1,20})', page)
    assert links
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    for clip in clips:
        files = {path.name for path in (out / clip.stem).iterdir()}
        assert {"HAP.png", "HAP.mp4", "SAD.png", "SAD.mp4"} <= files
        assert clip.name in page
        with av.open(str(out / clip.stem / "HAP.mp4")) as film:
            assert film.streams.video
            assert film.streams.audio
        predicted = Predictor(load_run(run)).predict(clip).probabilities.argmax()
        rows = {}
        for path in (out / clip.stem).glob("*.png"):
            rows[path.stem] = cv2.imread(str(path)).shape[0]
        most = load_run(run).classes[predicted]
        # What knows no class is drawn once, with the predicted class.
        assert all(rows[most] > rows[name] for name in rows if name != most)


def test_clip_is_decoded_once_for_all_methods(run, clips, tmp_path, monkeypatch):
    calls = []
    prepare = predictor_module.prepare_faces
    monkeypatch.setattr(
        predictor_module, "prepare_faces", lambda *a, **k: calls.append(a) or prepare(*a, **k)
    )
    words = ["--methods", "tibav,saliency", "--target", "ANG,HAP", "--out", str(tmp_path / "out")]
    assert main(["explain", str(run), str(clips[0]), *words]) == 0
    assert len(calls) == 1


def test_maps_are_those_of_the_class_asked_for(run, clips):
    loaded = load_run(run)
    predictor = Predictor(loaded)
    clip = predictor.prepare(clips[0])
    plain, (first, second) = predictor.explain_clip(clip, [("tibav", 1), ("tibav", 4)])
    assert plain.maps is None
    assert (first.target, second.target) == (1, 4)
    assert not np.allclose(first.maps, second.maps)
    alone = Predictor(loaded, method="tibav", target=4).predict_clip(clip)
    np.testing.assert_array_equal(second.maps, alone.maps)
    assert second.map_shares.sum() == pytest.approx(1, abs=1e-5)


def test_methods_said_to_know_no_class_give_every_class_one_map(run):
    loaded = load_run(run)
    frames = np.random.default_rng(0).normal(size=(1, 2, 16, 16, 3)).astype(np.float32)
    for method in ("rollout_min", "eigen_cam", "tibav", "grad_cam", "saliency"):
        a, b = (
            explain(loaded.model, loaded.variables, {"frames": frames}, method, target=t).maps
            for t in (0, 3)
        )
        assert np.array_equal(a, b) != knows_class(method), method


def test_sound_is_drawn_where_the_model_hears(heard_runs, clips, tmp_path):
    pages = {}
    for name in ("n2", "voice"):
        out = tmp_path / name
        words = ["--methods", "grad_cam", "--out", str(out)]
        assert main(["explain", str(heard_runs[name]), str(clips[0]), *words]) == 0
        pages[name] = (out / "index.html").read_text()
    # Pictures of sound are inlined PNG, galleries JPEG.
    assert "data:image/png" in pages["n2"]
    assert "data:image/jpeg" in pages["n2"]
    assert "data:image/png" in pages["voice"]
    assert "data:image/jpeg" not in pages["voice"]


# orbax's, on a manager that only reads.
@pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")
def test_converted_hugging_face_timesformer_is_explained(clips, tmp_path, capsys):
    with np.load(REFERENCE) as file:
        weights = {
            name.removeprefix("weight/"): np.ascontiguousarray(file[name])
            for name in file
            if name.startswith("weight/")
        }
    folder, converted, out = tmp_path / "hf", tmp_path / "run", tmp_path / "out"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    config = {"model_type": "timesformer", "num_attention_heads": 3, "num_frames": 3}
    config |= {
        "attention_type": "divided_space_time",
        "id2label": {str(i): f"e{i}" for i in range(6)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert (
        convert_checkpoint.main(["timesformer", "--from", str(folder), "--out", str(converted)])
        == 0
    )
    words = ["--methods", "tibav,grad_cam", "--target", "e2", "--out", str(out)]
    assert main(["explain", str(converted), str(clips[0]), *words]) == 0, capsys.readouterr().err
    assert (out / clips[0].stem / "e2.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "lime"], "'lime'; expected of tibav"),
        (["--methods", ","], "expected 'all' or names"),
        (["--target", "JOY"], "--target is 'JOY'; expected one of ANG, DIS"),
        (["--target", "HAP,JOY"], "--target is 'JOY'"),
    ],
)
def test_bad_requests_are_one_line(run, clips, tmp_path, capsys, words, said):
    out = tmp_path / "out"
    assert main(["explain", str(run), str(clips[0]), *words, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists()


def test_method_that_the_model_cannot_serve(heard_runs, clips, tmp_path, capsys):
    words = ["--methods", "tibav", "--out", str(tmp_path / "out")]
    assert main(["explain", str(heard_runs["n2"]), str(clips[0]), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tibav does not explain the mrpn" in line
    assert "grad_cam" in line


def test_no_clips(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(run), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "required: CLIP" in capsys.readouterr().err


def test_clips_that_cannot_be_used(run, clips, wall, tmp_path, capsys):
    words = ["--methods", "tibav", "--out", str(tmp_path / "out")]
    assert main(["explain", str(run), str(wall), str(tmp_path / "missing.mp4"), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "no face" in lines[0] or "face found in" in lines[0]
    assert "missing.mp4" in lines[1]
    assert "none of 2 clips could be explained" in lines[2]
    assert main(["explain", str(run), str(wall), str(clips[0]), *words]) == 3
    assert (tmp_path / "out/index.html").is_file()


def test_clips_are_not_replaced(run, clips, tmp_path, capsys):
    clip = tmp_path / "HAP" / "HAP.mp4"
    clip.parent.mkdir()
    clip.write_bytes(clips[0].read_bytes())
    assert main(["explain", str(run), str(clip), "--out", str(tmp_path)]) == 2
    assert "is one of the clips" in capsys.readouterr().err
    assert clip.read_bytes() == clips[0].read_bytes()
