"""The sound of a stream: 16 kHz mono that follows its time stamps and is never mixed to nothing."""

import av
import numpy as np

from data_prep.audible import SAMPLE_RATE

# Sound that is off its time stamps by more than this is brought back: silence is put into a gap,
# what overlaps is left out.
_MOST_DRIFT = 0.04
# The mono mix of channels in phase holds a quarter of the energy of the loudest one, or more.
_CANCELLED = 0.2
_EMPTY = np.zeros(0, np.int16)


class Sound:
    """Collects the decoded frames of a sound stream.

    Several channels are mixed as swresample mixes them, unless the mix cancels them (a miswired
    microphone: one channel is the other, inverted): then the loudest channel is taken, for the
    whole clip.

    Attributes:
      start: seconds of the first sample.
    """

    def __init__(self) -> None:
        self.start = 0.0
        self._began = False
        self._count = 0
        self._format: tuple[str, str, int] | None = None
        self._mono: av.AudioResampler | None = None
        self._split: av.AudioResampler | None = None
        self._chunks: list[np.ndarray] = []
        self._loudest: list[np.ndarray] = []  # the loudest channel of each format's stretch
        self._channels: list[np.ndarray] = []
        self._drop = 0

    def add(self, seconds: float, frame: av.AudioFrame) -> None:
        """Appends a frame that begins at `seconds`."""
        if not self._began:
            self.start, self._began = seconds, True
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            # A resampler is of one format; what it still holds belongs before this frame.
            self._flush()
            self._format = form
            self._mono = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            several = frame.layout.nb_channels > 1
            self._split = several and av.AudioResampler(
                format="s16p", layout=frame.layout.name, rate=SAMPLE_RATE
            )
        off = round((seconds - self.start) * SAMPLE_RATE) - self._count
        if off > _MOST_DRIFT * SAMPLE_RATE:
            self._append(np.zeros((1, off), np.int16), np.zeros((1, off), np.int16))
        elif off < -_MOST_DRIFT * SAMPLE_RATE:
            self._drop = -off
        # Times are kept by counting samples; the resamplers must not act on them as well.
        frame.pts = None
        self._take(frame)

    def samples(self) -> np.ndarray:
        """Returns int16 [S], 16 kHz mono."""
        self._flush()
        if not self._chunks:
            return _EMPTY
        mixed, loudest = np.concatenate(self._chunks), np.concatenate(self._loudest)
        return loudest if _energy(mixed) < _CANCELLED * _energy(loudest) else mixed

    def _take(self, frame: av.AudioFrame | None) -> None:
        mono = _resampled(self._mono, frame)
        several = _resampled(self._split, frame) if self._split else mono
        # Both resamplers give as many samples.
        self._append(mono, several)

    def _append(self, mono: np.ndarray, several: np.ndarray) -> None:
        kept = max(0, mono.shape[1] - self._drop)
        self._drop -= mono.shape[1] - kept
        self._count += kept
        if kept:
            self._chunks.append(mono[0, -kept:])
            self._channels.append(several[:, -kept:])

    def _flush(self) -> None:
        """Ends the stretch of one format."""
        if self._mono is None:
            return
        self._take(None)
        widest = max((part.shape[0] for part in self._channels), default=1)
        # Silence in a gap has one channel; it is silent in all.
        parts = [np.broadcast_to(p, (widest, p.shape[1])) for p in self._channels]
        if parts:
            channels = np.concatenate(parts, axis=1)
            self._loudest.append(channels[np.argmax([_energy(c) for c in channels])])
        self._channels, self._mono = [], None


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> np.ndarray:
    """Returns int16 [channels, n]; None as the frame gives what the resampler still holds."""
    parts = [part.to_ndarray() for part in resampler.resample(frame)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.int16)


def _energy(pcm: np.ndarray) -> float:
    return float(np.square(pcm, dtype=np.float64).sum())
