"""The page of the facial parts experiment: a confusion matrix and a recall of every case."""

from collections.abc import Mapping

import cv2
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from aver_jax.evaluation.metrics import confusion_matrix, per_class_recall
from aver_jax.experiments.pages import provenance
from aver_jax.experiments.pages.page import Page, Table, percent, points, points_span, span
from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.face_bands import CASES, FACE_SHARES, words_of
from aver_jax.explanation.tested import Tested
from aver_jax.report.contact_sheet import contact_sheet
from aver_jax.report.figures import LIGHT, Figure, new_figure, png, themed

_DPI = 100


def build_page(
    tested: Tested, predicted: Mapping[str, np.ndarray], shown: np.ndarray, command: str
) -> Page:
    """Returns the page.

    Args:
      tested: the run and its clips.
      predicted: baseline -> int [n,8], the class predicted in each of `face_bands.CASES`.
      shown: uint8 [k,8,H,W,3], crops of some clips in each case.
      command: the whole command.
    """
    classes, labels = list(tested.run.classes), tested.labels
    figures = {"bands": _sheet(shown)}
    cells: list[list[object]] = [["baseline", "occluded", "label", "predicted", "clips"]]
    accuracy, recall = [], []
    for baseline, found in predicted.items():
        matrices = [confusion_matrix(labels, column, len(classes)) for column in found.T]
        figures[f"confusion_{baseline}"] = png(confusions_figure(matrices, classes), _DPI)
        right = np.float64(found == labels[:, None])
        means, lows, highs = mean_intervals(right)
        # Clip by clip before resampling: what makes a clip hard counts on both sides.
        falls = mean_intervals(right - right[:, :1])
        for place, case in enumerate(CASES):
            words = words_of(case)
            fall, *ends = (float(x[place]) for x in falls)
            score = f"{percent(means[place])} {span(lows[place], highs[place])}"
            change = f"{points(fall)} {points_span(*ends)}" if case else "-"
            accuracy.append([words, baseline, score, change])
            shares = per_class_recall(matrices[place])
            recall.append([words, baseline, *(percent(float(share)) for share in shares)])
            cells += [
                [baseline, words, classes[i], classes[j], int(matrices[place][i, j])]
                for i, j in np.ndindex(len(classes), len(classes))
            ]
    context = {
        "data": provenance.tested_run(tested, "label"),
        "command": command,
        "baselines": list(predicted),
        "shown": next(iter(predicted)),
        "bands": ", ".join(
            f"{part} {100 * top:.0f} to {100 * bottom:.0f}%"
            for part, (top, bottom) in FACE_SHARES.items()
        ),
        "accuracy": Table(["occluded", "baseline", "accuracy", "change"], accuracy),
        "recall": Table(["occluded", "baseline", *classes], recall),
    }
    context["data"].pop("explained class")
    return Page("facial_parts.md.jinja", context, figures, {"confusions": cells})


def confusions_figure(matrices, classes) -> Figure:
    """Draws the eight confusion matrices: shares of the true class's clips, the diagonal framed."""
    size = len(classes)
    with themed(LIGHT):
        figure = new_figure(13.2, 7.4)
        # Titles and slanted names need more room than the layout leaves.
        figure.get_layout_engine().set(h_pad=0.15, hspace=0.08)
        ramp = LinearSegmentedColormap.from_list("recall", LIGHT.ramp)
        axes = figure.subplots(2, 4)
        for axis, case, matrix in zip(axes.flat, CASES, matrices, strict=True):
            total = matrix.sum(1, keepdims=True)
            share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
            axis.imshow(share, cmap=ramp, vmin=0, vmax=1)
            for y, x in np.ndindex(size, size):
                if matrix[y, x]:
                    color = "#ffffff" if share[y, x] > 0.6 else LIGHT.text
                    weight = "bold" if x == y else "normal"
                    axis.text(x, y, f"{100 * share[y, x]:.0f}", ha="center", va="center",
                              color=color, weight=weight, size=8)  # fmt: skip
            axis.set_title(f"{words_of(case)}: {100 * np.trace(matrix) / matrix.sum():.0f}%")
            axis.set_xticks(range(size), classes, rotation=45)
            axis.set_yticks(range(size), classes)
            axis.grid(visible=False)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("true class")
        for axis in axes[1]:
            axis.set_xlabel("predicted class")
    return figure


def _sheet(shown: np.ndarray) -> bytes:
    """Returns the contact sheet of occluded crops as PNG: a row per clip, a column per case."""
    captions = [words_of(case) for case in CASES] * len(shown)
    sheet = contact_sheet([image for clip in shown for image in clip], captions, len(CASES), 128)
    _, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
    return data.tobytes()
