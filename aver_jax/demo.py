"""The guided tour: every step on a corpus it renders itself, ending with a report."""

import argparse
import csv
import json
import shlex
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from aver_jax.audit.stored import read_audit
from aver_jax.errors import UserError
from aver_jax.input import Dataset, open_dataset
from aver_jax.jobs import run_job
from aver_jax.report import contact_sheet, html, sections
from aver_jax.report.difficulty import difficulty, difficulty_section, difficulty_text
from aver_jax.runs.metrics_log import read_metrics

_FACE = "timesformer.py:size=demo,dataset=synthetic"
_PROTOCOL = "synthetic_fifths"
_BRANCHES = ("video", "audio")
_MRPN = "size=study,dataset=synthetic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver demo`."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of everything")
    parser.add_argument("--clips", type=int, default=480, help="clips to render (default: 480)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus and the training")
    parser.add_argument(
        "--fast", action="store_true", help="60 clips and a few steps: shows the way, learns little"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the tour and prints the path of its report."""
    began = time.perf_counter()
    out: Path = args.out
    media, data, trained, fused = out / "media", out / "data", out / "run", out / "fusion"
    clips, actors = (60, 10) if args.fast else (args.clips, 40)
    _clear(out)
    done: list[tuple[str, str]] = []

    def step(purpose: str, job: str, *words: object) -> None:
        command = ["aver", job, *map(str, words)]
        print(f"\n# {purpose}\n$ {shlex.join(command)}", flush=True)
        code = run_job(job, command[2:])
        if code:
            raise UserError(f"`{shlex.join(command)}` ended with exit code {code}")
        done.append((purpose, shlex.join(command)))

    fast = ("epochs=2.0", "evaluation.every_epochs=1.0", "batch_size=16") if args.fast else ()

    def train(purpose: str, spec: str, folder: Path) -> None:
        fields = (f"data.path={data}", f"seed={args.seed}", *fast)
        words = (f"--config.{field}" for field in fields)
        step(purpose, "train", "--config", spec, *words, "--workdir", folder)

    step(
        "Render talking faces and voices as media files, with known ground truth",
        "prepare", "synthetic", "--out", media, "--clips", clips, "--actors", actors,
        "--fps", 12, "--seed", args.seed,
    )  # fmt: skip
    step(
        "Prepare them: decode, find and crop the faces, store crops and sound",
        "prepare", "crema_d", "--source", media, "--out", data, "--size", 96, "--margin", 1.0,
    )  # fmt: skip
    step(
        "Ask what trivial models reach on it: a score means something only beside that",
        "audit", data, "--protocol", _PROTOCOL,
    )  # fmt: skip
    purpose = "Train a small TimeSformer; its checkpoint is selected on validation actors"
    train(purpose, _FACE, trained)
    step(
        "Evaluate it on actors it has never seen, as is and with something taken away",
        "evaluate", trained, "--controls", "--temperature", "--predictions",
        out / "predictions.csv",
    )  # fmt: skip
    dataset = open_dataset(data)
    chosen = _one_clip_per_class(out / "predictions.csv", dataset)
    files = [media / "VideoMP4" / f"{clip}.mp4" for clip in chosen]
    step(
        "Predict and explain clips, straight from their media files",
        "predict", trained, *files, "--overlay", out / "overlays", "--relevance",
        out / "relevance.npz", "--csv", out / "clips.csv",
    )  # fmt: skip
    both = f"mrpn.py:network=n2,{_MRPN}"
    train("Train a small MRPN, which sees the face and hears the voice", both, fused)
    step(
        "Evaluate what each of its branches says by itself, and their fusion",
        "evaluate", fused, "--controls",
    )  # fmt: skip
    step(
        "Predict and explain some of the clips: the face, and the sound",
        "predict", fused, *files[::2], "--overlay", out / "overlays_fusion", "--csv",
        out / "clips_fusion.csv",
    )  # fmt: skip
    for modality in _BRANCHES:
        purpose = f"Train its {modality} branch alone, to see what the two together are worth"
        train(purpose, f"mrpn.py:network={modality},{_MRPN}", out / f"{modality}_alone")
        purpose = f"Evaluate the {modality} branch alone on the same actors"
        step(purpose, "evaluate", out / f"{modality}_alone")
    report, table = _write_report(out, dataset, (trained, fused), list(chosen.items()), done)
    print(f"\n# Does the score mean something?\n{table}")
    print(f"\ndone in {time.perf_counter() - began:.0f} s\nreport: {report}")
    return 0


def _clear(out: Path) -> None:
    """Removes what an earlier tour left; UserError if the folder holds anything else."""
    mark = out / "made_by_aver_demo"
    if out.exists() and any(out.iterdir()):
        if not mark.exists():
            raise UserError(f"{out} holds files that no demo made; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _one_clip_per_class(predictions: Path, dataset: Dataset) -> dict[str, str]:
    """Returns clip id -> true class: the first test clip of each class, whatever was predicted."""
    chosen: dict[str, str] = {}
    with predictions.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["label"] not in chosen.values():
                chosen[line["clip_id"]] = line["label"]
    return dict(sorted(chosen.items(), key=lambda item: dataset.classes.index(item[1])))


def _example_frames(dataset: Dataset) -> html.Picture:
    """Returns one middle frame for each of six actors of every class."""
    pictures, captions = [], []
    labels, actors = dataset.index["label"], dataset.index["actor"]
    some = list(dict.fromkeys(actors.tolist()))[:6]
    for name in dataset.classes:
        for actor in some:
            rows = np.flatnonzero((labels == name) & (actors == actor))
            if not len(rows):
                continue
            frames = dataset.source[int(rows[0])]["frames"]
            jpeg = np.frombuffer(frames[len(frames) // 2], np.uint8)
            pictures.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
            captions.append(f"{name}, actor {actor}")
    return html.photo(
        contact_sheet.contact_sheet(pictures, captions, columns=len(some), side=120),
        "The crop around the detected face, as stored; one row per emotion.",
    )


def _write_report(
    out: Path,
    dataset: Dataset,
    runs: tuple[Path, Path],
    chosen: list[tuple[str, str]],
    commands: list[tuple[str, str]],
) -> tuple[Path, str]:
    """Returns the report's path, and the table of what is kept of a corpus worth learning from."""
    face, fused = map(_results, runs)
    with np.load(out / "relevance.npz") as file:
        explained = {name: file[name] for name in file.files}
    audit = read_audit(dataset.path, _PROTOCOL, "intended")
    config = json.loads((runs[0] / "config.json").read_text())
    sees_one_frame = config["frontend"]["normalization"] != "per_clip_change"
    alone = {name: _results(out / f"{name}_alone") for name in _BRANCHES}
    rows = difficulty(audit, face, fused, sees_one_frame, alone)
    stacks = []
    for number, (clip, truth) in enumerate(chosen):
        predicted = dataset.classes[int(explained["target"][number])]
        verdict = "right" if predicted == truth else "wrong"
        strip = contact_sheet.filmstrip(
            explained["frames"][number],
            explained["maps"][number],
            explained["frame_times"][number],
        )
        stacks.append(
            [
                html.video(
                    out / "overlays" / f"{clip}.mp4",
                    f"{clip}: true {truth}, predicted {predicted} ({verdict})",
                ),
                html.photo(
                    strip, "The frames the network saw, and the relevance of its prediction."
                ),
            ]
        )
    report = html.write_report(
        out / "report.html",
        "aver_jax demo",
        [
            sections.summary(face, [_fusion_tile(fused)]),
            difficulty_section(rows),
            html.Section(
                "The corpus",
                [_example_frames(dataset)],
                f"{len(dataset.index['row'])} rendered clips of "
                f"{len(set(dataset.index['actor'].tolist()))} actors. Identity, light, "
                "background, glasses, the face and the voice at rest, head motion, sentence, "
                "microphone and level vary independently of the emotion.",
            ),
            sections.training(
                read_metrics(runs[0] / "metrics.jsonl"), config["evaluation"]["select"]
            ),
            sections.scores(face),
            sections.controls(face),
            sections.explained(
                stacks,
                "The first test clip of each emotion, right or wrong. Relevance: TIBAV of the "
                "predicted class, through time and space.",
            ),
            sections.modalities(fused),
            sections.controls(fused),
            html.Section(
                "Seen and heard",
                [html.Columns(_seen_and_heard(out, dict(chosen)))],
                "Three of these clips again, through both branches of the MRPN. Relevance: "
                "Grad-CAM of the fused prediction, over the face and over the spectrogram.",
            ),
            sections.meaning(dataset.classes, config["data"]["target"], dataset.name),
            sections.steps(commands),
            sections.environment(),
        ],
        subtitle="From rendered clips to a TimeSformer and an MRPN, trained and explained",
    )
    return report, difficulty_text(rows)


def _results(run: Path) -> dict:
    return json.loads((run / "evaluation" / "test" / "results.json").read_text())


def _fusion_tile(results: dict) -> tuple[str, str, str]:
    war = results["metrics"]["war"]
    span = f"{100 * war['low']:.1f} to {100 * war['high']:.1f}%"
    return "WAR with the voice (MRPN)", f"{100 * war['value']:.1f}%", span


def _seen_and_heard(out: Path, truths: dict[str, str]) -> list[list[html.Block]]:
    """Returns a stack per clip: the overlay video, the picture of the sound, and who said what."""
    stacks = []
    with (out / "clips_fusion.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            clip = Path(line["file"]).stem
            says = (
                f"{clip}: true {truths[clip]}; the face alone says {line['video_prediction']}, "
                f"the voice alone {line['audio_prediction']}, both {line['prediction']}"
            )
            picture = cv2.imread(str(out / "overlays_fusion" / f"{clip}_sound.png"))
            stacks.append(
                [
                    html.video(out / "overlays_fusion" / f"{clip}.mp4", says),
                    html.photo(picture[..., ::-1], "What it heard, and what of it mattered."),
                ]
            )
    return stacks
