"""Where in a sound there is anything to hear. Needs numpy alone."""

import numpy as np

SAMPLE_RATE = 16_000  # Hz
# A stretch of 20 ms above -70 dB of full scale can be heard.
_STRETCH = SAMPLE_RATE // 50
_AUDIBLE = 32_768 * 10 ** (-70 / 20)
#: Less than this is no sound.
LEAST_AUDIBLE_SECONDS = 0.1
# A shorter silence is a pause.
_PAUSE_SECONDS = 1.0


def audible_seconds(pcm: np.ndarray) -> float:
    """Returns for how many seconds of int16 [S] at 16 kHz there is anything to hear."""
    return float(_loud(pcm).sum()) * _STRETCH / SAMPLE_RATE


def audible_stretches(pcm: np.ndarray) -> list[tuple[float, float]]:
    """Returns the (start, stop) seconds of int16 [S] at 16 kHz without the longer silences."""
    loud = np.flatnonzero(_loud(pcm)) * (_STRETCH / SAMPLE_RATE)
    whole = len(pcm) / SAMPLE_RATE
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > _PAUSE_SECONDS) + 1
    spans = [(float(p[0]), float(p[-1]) + _STRETCH / SAMPLE_RATE) for p in np.split(loud, breaks)]
    first = 0.0 if spans[0][0] < _PAUSE_SECONDS else spans[0][0]
    last = whole if whole - spans[-1][1] < _PAUSE_SECONDS else spans[-1][1]
    starts, stops = [first, *(a for a, _ in spans[1:])], [*(b for _, b in spans[:-1]), last]
    return list(zip(starts, stops, strict=True))


def _loud(pcm: np.ndarray) -> np.ndarray:
    """Returns bool [S // 320], for each 20 ms."""
    whole = len(pcm) // _STRETCH * _STRETCH
    stretches = pcm[:whole].reshape(-1, _STRETCH).astype(np.float32)
    return np.sqrt(np.square(stretches).mean(axis=1)) > _AUDIBLE
