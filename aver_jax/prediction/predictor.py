"""A run's model applied to media files: predictions, features and relevance."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aver_jax.errors import MissingModality, UnusableClip
from aver_jax.frontend import evaluation_inputs, spectrogram
from aver_jax.frontend.feature_grid import cell_centres
from aver_jax.input import time_spans
from aver_jax.input.clips import (
    LEAST_FACE_SHARE,
    SAMPLE_RATE,
    ClipShape,
    frames_within,
    span_arrays,
)
from aver_jax.input.sampling import view_slices
from aver_jax.modality import Modality
from aver_jax.models import inference_form
from aver_jax.prediction.prediction import AudioMap, Clip, Prediction, SpanPredictions
from aver_jax.relevance import Relevance, explain
from aver_jax.runs.run_folder import LoadedRun
from data_prep.clip import Job, Preparation, prepare_clip, prepare_faces


class Predictor:
    """A run's model applied to media files, prepared as its training data were.

    Args:
      run: an open run folder.
      temperature: divides the fused logits, not those of single branches: `aver evaluate
        --temperature` fits it to fused logits.
      method: relevance method, or None to explain nothing.
      path: relevance path, "space_time" or "spatial".
      target: index of the class that is explained; None for the predicted one.
    """

    def __init__(
        self,
        run: LoadedRun,
        temperature: float = 1.0,
        method: str | None = None,
        path: str = "space_time",
        target: int | None = None,
    ):
        self.run, self._temperature = run, temperature
        self._method, self._path, self._target = method, path, target
        self._preparation = Preparation.from_json(run.preparation)
        data = run.config.data
        self._shape = ClipShape(
            data.num_frames, data.image_size, data.max_seconds, tuple(run.modalities)
        )
        self._views = view_slices(run.config.evaluation.views)
        self._model = inference_form(run.model, jax.default_backend())
        self.takes_one_modality = run.model.takes_one_modality
        self._forward = jax.jit(self._logits, compiler_options=self._model.compiler_options)
        self._inputs = jax.jit(lambda batch: evaluation_inputs(run.config, batch))
        self._assembled = jax.jit(self._whole_map)

    def _logits(self, variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits, taps = self._model.apply(variables, evaluation_inputs(self.run.config, batch))
        return taps | {"logits": logits}

    def _whole_map(self, maps: jax.Array, segments: jax.Array) -> jax.Array:
        settings = spectrogram.checked_settings(self.run.config.frontend.spectrogram)
        # Up to the end of the last segment, which lies beyond that of the sound.
        frames = _covered(settings, maps.shape[1])
        return spectrogram.assembled(maps, settings, frames, segments)

    def prepare(self, path: Path, streams: Sequence[str] = ()) -> Clip:
        """Reads a media file; a model that takes one modality uses what there is.

        Args:
          path: the file; of one that is cut off, what can be decoded.
          streams: which of its streams, such as "v:1" or "a:0".

        Raises:
          UnusableClip: its text says why.
        """
        return self.prepare_faces(path, streams)[0]

    def prepare_faces(
        self,
        path: Path,
        streams: Sequence[str] = (),
        prefer: str = "longest",
        span: tuple[float, float] | None = None,
    ) -> list[Clip]:
        """Reads a media file once for every face in it, the preferred one first.

        Args:
          path, streams: as of `prepare`.
          prefer: the face that is there "longest", or the "largest".
          span: (start, stop), seconds of the file that are the clip; None: all of it.

        Raises:
          UnusableClip: its text says why.
        """
        job = Job(path, clip_id=path.stem, streams=tuple(streams), keep_truncated=True, span=span)
        modalities = self._shape.modalities
        if len(modalities) > 1 and self.takes_one_modality:
            return self._whatever_there_is(job, prefer)
        try:
            records = prepare_faces(job, self._preparation, modalities, prefer)
        except MissingModality as reason:
            if len(modalities) == 1:
                raise
            raise UnusableClip(self._needs_both(reason)) from None
        return [Clip(path, record, modalities, streams=job.streams) for record in records]

    def _whatever_there_is(self, job: Job, prefer: str) -> list[Clip]:
        try:
            # Sound that is not required is taken along: one pass over the file is enough.
            records = prepare_faces(job, self._preparation, (Modality.VIDEO,), prefer)
        except MissingModality as no_video:
            try:
                record = prepare_clip(job, self._preparation, (Modality.AUDIO,))
            except MissingModality as no_audio:
                raise UnusableClip(f"{no_video}, and {no_audio}") from None
            missing = str(no_video).partition(" (")[0]
            return [Clip(job.path, record, (Modality.AUDIO,), missing, streams=job.streams)]
        if not records[0]["pcm"]:
            # The last thing that is told of its sound is why there is none.
            told = [note for note in records[0]["notes"] if note.about == Modality.AUDIO]
            missing = told[-1].partition(" (")[0] if told else "no audio"
            used = (Modality.VIDEO,)
        else:
            missing, used = "", self._shape.modalities
        return [Clip(job.path, r, used, missing, streams=job.streams) for r in records]

    def predict(self, path: Path) -> Prediction:
        """Predicts one media file.

        Raises:
          UnusableClip: its text says why.
        """
        return self.predict_clip(self.prepare(path))

    def predict_clip(self, clip: Clip) -> Prediction:
        """Predicts one clip; several views of it are averaged as in evaluation."""
        prediction, batch = self._predicted(clip)
        if not self._method:
            return prediction
        return self._explained(prediction, batch, self._method, prediction.target)

    def explain_clip(
        self, clip: Clip, asked: Sequence[tuple[str, int | None]]
    ) -> tuple[Prediction, list[Prediction]]:
        """Predicts one clip once, and explains it in several ways.

        Args:
          clip: a prepared clip.
          asked: (method, class); None is the predicted class.

        Returns:
          The prediction without relevance, and one with it for each that was asked for.
        """
        prediction, batch = self._predicted(clip)
        predicted = int(prediction.probabilities.argmax())
        return prediction, [
            self._explained(prediction, batch, method, predicted if target is None else target)
            for method, target in asked
        ]

    def _predicted(self, clip: Clip) -> tuple[Prediction, dict[str, np.ndarray]]:
        """Returns the prediction without relevance, and the batch that relevance explains."""
        clip = self._within_window(clip)
        first, last = time_spans.window(clip.known, clip.used, self._shape.max_seconds)
        spans = first + self._views * (last - first)
        # Views that lack what the whole has would be of another kind.
        complete = [span for span in spans if self._complete(clip, span)]
        found = self.predict_spans(clip, np.array(complete or [(first, last)]))
        # As in evaluation: the views' probabilities are averaged, then the temperature applies.
        probabilities = self.tempered(found.probabilities.mean(axis=0), clip.used)
        shape = dataclasses.replace(self._shape, modalities=clip.used)
        whole = span_arrays([(clip.known, first, last)], 1, shape)
        frames = whole.get("frames", np.zeros((1, 0, 0, 0, 3), np.uint8))[0]
        frame_times = whole.get("frame_times", np.zeros((1, 0), np.float32))[0] + np.float32(first)
        prediction = Prediction(
            path=clip.path,
            probabilities=probabilities,
            branches={name: value.mean(axis=0) for name, value in found.branches.items()},
            features={name: value.mean(axis=0) for name, value in found.features.items()},
            used=clip.used,
            missing=clip.missing,
            partly=_partly(clip, (first, last)),
            window=(first, last),
            record={name: value for name, value in clip.record.items() if name != "frames"},
            frames=frames,
            frame_times=frame_times,
            whole=_whole(clip),
            streams=clip.streams,
            faces=self._faces(clip, (first, last)) if Modality.VIDEO in clip.used else (0, 0),
            face=clip.face,
            notes=self._notes(clip),
            target=int(probabilities.argmax()) if self._target is None else self._target,
        )
        return prediction, whole

    def _notes(self, clip: Clip) -> tuple[str, ...]:
        """Returns what was done to the file, as far as it matters to the model and the face."""
        matters = {"file", *self._shape.modalities, *(() if clip.face else ("faces",))}
        return tuple(note for note in clip.record["notes"] if note.about in matters)

    def _within_window(self, clip: Clip) -> Clip:
        """Returns the clip with only those modalities used that its window holds.

        Raises:
          UnusableClip: the network needs all of them.
        """
        span = time_spans.window(clip.known, clip.used, self._shape.max_seconds)
        if Modality.VIDEO in clip.used:
            found, count = self._faces(clip, span)
            if found < LEAST_FACE_SHARE * count:
                return self._without_face(clip, f"face found in {found} of {count} frames")
        if self._complete(clip, span):
            return clip
        # Sound that ends before the picture begins, or the reverse: the larger part is used.
        most = max(clip.used, key=lambda name: time_spans.seconds_within(clip.known, name, span))
        (other,) = (name for name in clip.used if name != most)
        missing = f"no {other} with the {most}"
        if not self.takes_one_modality:
            raise UnusableClip(self._needs_both(missing))
        return dataclasses.replace(clip, used=(most,), missing=missing)

    def _without_face(self, clip: Clip, missing: str) -> Clip:
        if len(clip.used) > 1 and self.takes_one_modality:
            return dataclasses.replace(clip, used=(Modality.AUDIO,), missing=missing)
        least = f"at least {LEAST_FACE_SHARE:.0%} are needed"
        raise UnusableClip(f"{missing}, {least}")

    def _faces(self, clip: Clip, span: tuple[float, float]) -> tuple[int, int]:
        """Returns in how many of the model's T moments of a span the face is known, and T."""
        moments = frames_within(clip.record, *span, self._shape.num_frames)
        return int(np.asarray(clip.record["face_found"])[moments].sum()), len(moments)

    def _complete(self, clip: Clip, span: np.ndarray | tuple[float, float]) -> bool:
        return all(time_spans.seconds_within(clip.known, name, span) for name in clip.used)

    def _needs_both(self, missing: object) -> str:
        name = self.run.config.model.name
        return f"{missing}; this {name} needs the video and the audio of a clip"

    def predict_spans(
        self,
        clip: Clip,
        spans: np.ndarray,
        batch_size: int | None = None,
        max_seconds: float | None = None,
    ) -> SpanPredictions:
        """Returns predictions for spans of a clip, at temperature 1.

        Args:
          clip: a prepared clip.
          spans: float [n, 2], start and stop in seconds of the clip.
          batch_size: spans at a time; default all. The last batch is filled up, so that one
            compiled call serves any number of them.
          max_seconds: of sound that a span may hold; default `config.data.max_seconds`.
        """
        shape = dataclasses.replace(
            self._shape,
            modalities=clip.used,
            max_seconds=max_seconds or self._shape.max_seconds,
        )
        size = batch_size or len(spans)
        parts = []
        for first in range(0, len(spans), size):
            part = spans[first : first + size]
            filled = [*part, *[part[-1]] * (size - len(part))]
            batch = span_arrays([(clip.known, *span) for span in filled], size, shape)
            given = jax.device_get(self._forward(self.run.variables, batch))
            parts.append({name: value[: len(part)] for name, value in given.items()})
        given = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        features = {name: given[name] for name in given if name.startswith("features")}
        if len(clip.used) < len(self._shape.modalities):
            # Those of the branch that is there, and no input of the last classifier.
            del features["features"]
        branches = {
            name: _softmax(given[f"logits_{name}"])
            for name in clip.used
            if f"logits_{name}" in given
        }
        return SpanPredictions(_softmax(given["logits"]), branches, features)

    def tempered(self, probabilities: np.ndarray, used: tuple[Modality, ...]) -> np.ndarray:
        """Returns probabilities [..., C] with the temperature applied, float32.

        It was fitted to predictions from all of the model's modalities: those of one branch alone
        (`used` holds fewer) stay as they are.
        """
        if len(used) < len(self._shape.modalities):
            return probabilities
        # A class may have underflowed to zero.
        logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        return _softmax(logits / self._temperature)

    def _explained(
        self, prediction: Prediction, batch: Mapping[str, np.ndarray], method: str, target: int
    ) -> Prediction:
        """Adds the relevance for a class to a prediction, from a batch of its window alone."""
        inputs, found = self._inputs(batch), {}
        for modality in prediction.used:
            relevance = explain(
                self.run.model,
                self.run.variables,
                inputs,
                method=method,
                path=self._path,
                modality=modality,
                target=target,
                # Scaled below: segments of sound are put together first, and the frames' shares
                # are of relevance as it is.
                normalize=False,
            )
            if modality == Modality.VIDEO:
                maps = np.asarray(relevance.maps[0])
                found["maps"] = _scaled(maps)
                found["maps_peak"] = float(relevance.peak[0])
                found["map_times"] = _resampled(prediction.frame_times, len(maps))
                found["map_shares"] = maps.sum(axis=(1, 2)) / max(float(maps.sum()), 1e-30)
            else:
                found["audio_map"] = self._audio_map(
                    relevance, batch, inputs["audio_segments"], prediction.window[0]
                )
        return dataclasses.replace(prediction, target=target, **found)

    def _audio_map(
        self,
        relevance: Relevance,
        batch: Mapping[str, np.ndarray],
        segments: jax.Array,
        start: float,
    ) -> AudioMap | None:
        settings = spectrogram.checked_settings(self.run.config.frontend.spectrogram)
        heard = int(spectrogram.num_frames(settings, batch["audio_length"])[0])
        if not heard:
            return None
        whole = np.asarray(self._assembled(relevance.maps, segments)[0])
        whole = whole[:, : _covered(settings, int(segments[0]))]
        # The frame at the very end of a sound may be in no segment.
        heard = min(heard, whole.shape[1])
        total = float(whole.sum())
        return AudioMap(
            values=_scaled(whole)[:, :heard],
            times=np.float32(start + np.arange(heard) * (settings.hop / SAMPLE_RATE)),
            frequencies=np.float32(spectrogram.frequencies(settings)),
            peak=float(relevance.peak[0]),
            padding=float(whole[:, heard:].sum()) / total if total > 0 else 0.0,
        )


def _covered(settings: spectrogram.Settings, segments: int) -> int:
    """Returns frames from the start of the first segment to the end of the last."""
    return (segments - 1) * settings.step + settings.segment


def _whole(clip: Clip) -> tuple[float, float]:
    ends = time_spans.extents(clip.record)
    used = [ends[name] for name in clip.used if name in ends]
    return min(start for start, _ in used), max(stop for _, stop in used)


def _partly(clip: Clip, span: tuple[float, float]) -> str:
    """Returns what is there in less than half of a span; empty where all is."""
    length = span[1] - span[0]
    parts = {name: time_spans.seconds_within(clip.known, name, span) for name in clip.used}
    return ", ".join(
        f"{name} in {part:.1f} of {length:.1f} s"
        for name, part in parts.items()
        if part < length / 2
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    # In numpy: jax would compile it anew for every number of spans.
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return np.float32(shares / shares.sum(axis=-1, keepdims=True))


def _resampled(times: np.ndarray, count: int) -> np.ndarray:
    """Times of `count` maps of T frames: of networks that join frames, those they look at."""
    centres = cell_centres(count, len(times))
    return np.interp(centres, np.arange(len(times)), times).astype(np.float32)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Returns values min-max scaled to 0..1."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high - low > 1e-6 * high else np.zeros_like(values)
