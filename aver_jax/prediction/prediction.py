"""A media file as a model sees it, and what the model predicts for it."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.input.known import known_part
from aver_jax.modality import Modality


@dataclasses.dataclass(frozen=True)
class Clip:
    """A media file, prepared.

    Attributes:
      path: the file.
      record: see `data_prep.clip.prepare_clip`.
      used: which of the model's modalities it has, as `Modality`.
      missing: why the others are missing, such as "no audio"; empty where none is.
      face: which of the faces of the file, from 1; 0 where only one was asked for.
      streams: of the file that were asked for.
    """

    path: Path
    record: dict[str, Any]
    used: tuple[Modality, ...]
    missing: str = ""
    face: int = 0
    streams: tuple[str, ...] = ()

    @functools.cached_property
    def known(self) -> dict[str, Any]:
        """What a prediction may be made from: the modalities that are used, frames with a face."""
        return known_part(self.record, self.used)


@dataclasses.dataclass(frozen=True)
class SpanPredictions:
    """Predictions for n spans of a clip.

    Attributes:
      probabilities: float32 [n, C].
      branches: "video" or "audio" -> float32 [n, C], of that branch alone; only of models whose
        branches classify, and of what the clip has.
      features: name -> float32 [n, D]: "features", the input of the last classifier, and the
        branches' own ("features_video", "features_audio").
    """

    probabilities: np.ndarray
    branches: dict[str, np.ndarray]
    features: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class AudioMap:
    """Relevance of the audio for a class, over its spectrogram.

    Attributes:
      values: float32 [F, K] in 0..1, scaled by itself: 1 is the highest of the segments that the
        sound is heard in, which may lie on the silence after its end.
      times: float32 [K], seconds in the clip, of the centres of the K frames.
      frequencies: float32 [F], Hz.
      peak: the highest relevance before scaling; 0 where there is no positive one.
      padding: share of the relevance that lies on that silence, 0..1.
    """

    values: np.ndarray
    times: np.ndarray
    frequencies: np.ndarray
    peak: float
    padding: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one clip.

    Attributes:
      path: the media file.
      probabilities: float32 [C].
      branches: "video" or "audio" -> float32 [C], see `SpanPredictions`.
      features: name -> float32 [D], see `SpanPredictions`.
      used: the modalities that the prediction is made from, as `Modality`.
      missing: why the model's other modality has no part in it; empty where it has.
      partly: what is there in less than half of the window, such as "audio in 1.0 of 6.0 s".
      window: (start, stop), seconds in the clip, it is made from (`time_spans.window`).
      record: the prepared clip without its images, see `data_prep.clip.prepare_clip`.
      frames: uint8 [T, H, W, 3] RGB, the crops the model saw; T is 0 where it saw none.
      frame_times: float32 [T], their seconds in the clip.
      whole: (start, stop), seconds of all that the file holds of the modalities used.
      faces: (moments of these T with a known face, T).
      face: which of the faces of the file, from 1; 0 where only one was asked for.
      streams: of the file that were asked for.
      notes: what was chosen or changed of the file.
      target: index of the class that is explained.
      maps: float32 [T', h, w] relevance of that class in 0..1, or None if not asked for
        or not seen.
      map_times: float32 [T'], seconds in the clip; T' is T, or less in networks that join frames.
      map_shares: float32 [T'], the share of all relevance that lies in each of these frames, before
        the maps were scaled.
      maps_peak: the highest relevance before they were scaled; 0 where there is no positive one.
      audio_map: the relevance of the audio, or None if not asked for or not used.
    """

    path: Path
    probabilities: np.ndarray
    branches: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    used: tuple[Modality, ...]
    missing: str
    partly: str
    window: tuple[float, float]
    record: dict[str, Any]
    frames: np.ndarray
    frame_times: np.ndarray
    whole: tuple[float, float] = (0.0, 0.0)
    faces: tuple[int, int] = (0, 0)
    face: int = 0
    streams: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    target: int = 0
    maps: np.ndarray | None = None
    map_times: np.ndarray | None = None
    map_shares: np.ndarray | None = None
    maps_peak: float = float("nan")
    audio_map: AudioMap | None = None


@dataclasses.dataclass(frozen=True)
class Explained:
    """A prediction, explained for some classes by some methods.

    Attributes:
      prediction: without relevance.
      by_class: class index -> method -> the prediction with that relevance. The predicted class is
        the first and has every method; others have the methods that know a class.
    """

    prediction: Prediction
    by_class: dict[int, dict[str, Prediction]]
