"""The page of `aver explain`: a section per clip, with its gallery, profile, sound and video."""

from pathlib import Path

import cv2
import numpy as np

from aver_jax.modality import Modality
from aver_jax.prediction.pictures import PIXEL_GRID, shown, sound_picture, write_overlays
from aver_jax.prediction.prediction import Explained, Prediction
from aver_jax.report import html
from aver_jax.report.gallery import Row, gallery, profile_figure
from aver_jax.report.overlay_video import flat_words
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.atomic_files import write_whole
from data_prep.wording import one_line

_READING = (
    "Each row is one method; a column is one of the frames that the model saw. Bright and yellow "
    "is high relevance, dark and violet is low: the colours are inferno without its black end, "
    "which is perceptually uniform and reads the same when printed in grey. The face is drawn "
    "nearly grey, so that colour means relevance alone.",
    "Scale: each map is min-max scaled to 0..1 over the whole clip (all frames together, each "
    "method and class by itself). So the frames of a row compare; the rows do not compare in "
    "strength, and a map that holds little but noise is scaled up as well. Maps are enlarged "
    "smoothly for display; those of single pixels (saliency and its kin) are drawn as means over "
    f"{PIXEL_GRID} x {PIXEL_GRID} places.",
    "Methods that know no class (plain rollouts, eigen_cam) give the same map for every class; "
    "they are drawn with the predicted class alone.",
    "Relevance over time is the share of a clip's relevance that lies in each frame, taken before "
    "scaling; the dashed level is the same share for every frame.",
)


def clip_section(folder: Path, found: Explained, run: LoadedRun) -> html.Section:
    """Writes the files of a clip, CLASS.png and CLASS.mp4, and returns its section of the page.

    Args:
      folder: of the clip's files, made if need be.
      found: the clip, explained.
      run: whose model it is.
    """
    prediction = found.prediction
    blocks: list[html.Block] = [html.Tiles(_tiles(prediction, run))]
    if said := _remarks(prediction):
        blocks.append(html.Text([said]))
    for target, by_method in found.by_class.items():
        blocks += _class_blocks(folder, target, by_method, run)
    return html.Section(one_line(prediction.path.name), blocks)


def write_page(
    path: Path,
    sections: list[html.Section],
    folder: Path,
    run: LoadedRun,
    methods: tuple[str, ...],
    through: str,
) -> Path:
    """Writes the page and returns its path.

    Args:
      path: the HTML file.
      sections: of the clips.
      folder: of the run.
      run: whose model it is.
      methods: that were asked for.
      through: the relevance path.
    """
    reading = html.Section("How to read the maps", [html.Text(_READING)])
    return html.write_report(
        path,
        "What the predictions depend on",
        [*sections, reading],
        subtitle="Relevance of face and voice for a class, by every method asked for.",
        metadata=[
            ("run", folder.resolve().name),
            ("model", run.config.model.name),
            ("step", str(run.step)),
            ("path", through),
            ("methods", ", ".join(methods)),
        ],
    )


def _class_blocks(
    folder: Path, target: int, by_method: dict[str, Prediction], run: LoadedRun
) -> list[html.Block]:
    """Returns the blocks of one class; the first of a clip's is the predicted class."""
    name, drawn = run.classes[target], next(iter(by_method.values()))
    predicted = int(drawn.probabilities.argmax()) == target
    words = f"{name}, the predicted class" if predicted else name
    blocks: list[html.Block] = [html.Text([f"Explained: {words}."])]
    # The video is one method's: the first.
    write_overlays(folder, name, drawn, run, sound=False)
    if Modality.VIDEO in drawn.used:
        rows = [_row(method, shown(p, run)) for method, p in by_method.items()]
        sheet = gallery(drawn.frames, drawn.frame_times, rows)
        _, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
        write_whole(folder / f"{name}.png", data.tobytes())
        blocks += [
            html.photo(sheet, f"Relevance for {words}", width=sheet.shape[1]),
            html.drawn(lambda theme: profile_figure(rows, theme), f"Over time, for {words}"),
            html.video(folder / f"{name}.mp4", f"{next(iter(by_method))} for {words}"),
        ]
    blocks += [
        html.pixels(sound_picture(p, run, f"{method}: relevance of the sound for {name}"))
        for method, p in by_method.items()
        if p.audio_map is not None
    ]
    return blocks


def _row(method: str, found: Prediction) -> Row:
    flat = "" if found.maps.max() > 0 else flat_words(found.maps_peak)
    return Row(method, found.maps, found.map_times, found.map_shares, flat)


def _tiles(prediction: Prediction, run: LoadedRun) -> list[tuple[str, str, str]]:
    order = np.argsort(prediction.probabilities)[::-1]
    best, second = (f"{100 * prediction.probabilities[i]:.0f}%" for i in order[:2])
    start, stop = prediction.window
    return [
        ("predicted", run.classes[order[0]], best),
        ("next", run.classes[order[1]], second),
        ("read", f"{start:.1f} to {stop:.1f} s", ", ".join(map(str, prediction.used))),
    ]


def _remarks(prediction: Prediction) -> str:
    parts = [prediction.missing, prediction.partly, *map(str, prediction.notes)]
    return "; ".join(part for part in parts if part)
