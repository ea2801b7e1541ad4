"""Clips written as MP4 files."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    pcm: np.ndarray,
    sample_rate: int,
    *,
    timestamps: Sequence[float] | None = None,
    crf: int = 18,
) -> None:
    """Writes an MP4 file with H.264 video (yuv420p) and AAC sound.

    Frames of odd height or width are padded by repeating the last row or column, as yuv420p
    needs even sizes.

    Args:
      path: file to write (`.mp4`).
      frames: uint8 [H, W, 3], RGB, all of one size.
      fps: frames per second; the encoder's nominal rate when `timestamps` are given.
      pcm: int16 [S], mono; empty for a clip without a sound stream.
      sample_rate: samples per second of `pcm`.
      timestamps: seconds of every frame, increasing; by default frame i is at i / fps.
      crf: H.264 quality, 0 (lossless) to 51.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        video.pix_fmt = "yuv420p"
        # "veryfast" weighs macroblocks by a search whose results differ from call to call.
        video.options = {"crf": str(crf), "preset": "superfast"}
        # One thread makes the file the same on every machine.
        video.codec_context.thread_count = 1
        video.codec_context.time_base = Fraction(1, 90_000)
        audio = None
        if len(pcm):
            audio = container.add_stream("aac", rate=sample_rate, layout="mono")
            audio.bit_rate = 96_000
        for index, image in enumerate(frames):
            height, width = image.shape[:2]
            if height % 2 or width % 2:
                image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if index == 0:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            seconds = index / fps if timestamps is None else float(timestamps[index])
            frame.pts = round(seconds * 90_000)
            frame.time_base = Fraction(1, 90_000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(pcm, np.int16).reshape(1, -1), format="s16", layout="mono"
            )
            block.sample_rate = sample_rate
            block.pts = 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
