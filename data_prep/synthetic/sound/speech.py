"""What is said: the sentences as phones, timed, with the formants and lip shapes they need."""

from dataclasses import dataclass

import numpy as np

STEP = 0.005  # seconds per control frame

# First three formants of American English vowels, Hz, men (Peterson & Barney 1952).
_VOWELS = {
    "IY": (270, 2290, 3010), "IH": (390, 1990, 2550), "EH": (530, 1840, 2480),
    "AE": (660, 1720, 2410), "AA": (730, 1090, 2440), "AO": (570, 840, 2410),
    "UH": (440, 1020, 2240), "UW": (300, 870, 2240), "AH": (640, 1190, 2390),
    "ER": (490, 1350, 1690),
}  # fmt: skip
_GLIDES = {
    "AY": ("AA", "IY"), "EY": ("EH", "IY"), "OW": ("AO", "UW"), "AW": ("AA", "UW"),
    "OY": ("AO", "IY"),
}  # fmt: skip
_ROUND = {"UW": 1.0, "UH": 0.6, "AO": 0.7, "ER": 0.4, "W": 1.0, "SH": 0.5, "CH": 0.5, "JH": 0.5}
# loudness of the voice, noise, centre of the noise in Hz, opening of the lips, length
_CONSONANTS = {
    "M": (0.35, 0.0, 0, 0.0, 0.6), "N": (0.4, 0.0, 0, 0.2, 0.55),
    "NG": (0.35, 0.0, 0, 0.25, 0.6), "L": (0.6, 0.0, 0, 0.35, 0.5),
    "R": (0.6, 0.0, 0, 0.25, 0.5), "W": (0.55, 0.0, 0, 0.12, 0.5),
    "V": (0.3, 0.12, 4500, 0.05, 0.5), "Z": (0.25, 0.35, 5500, 0.15, 0.6),
    "DH": (0.3, 0.08, 4500, 0.2, 0.4), "S": (0.0, 0.6, 5800, 0.15, 0.75),
    "SH": (0.0, 0.6, 3200, 0.2, 0.75), "F": (0.0, 0.2, 4800, 0.03, 0.65),
    "TH": (0.0, 0.15, 5000, 0.2, 0.6), "HH": (0.0, 0.2, 1500, 0.4, 0.45),
    "P": (0.0, 0.45, 1000, 0.0, 0.6), "T": (0.0, 0.5, 4500, 0.2, 0.55),
    "K": (0.0, 0.45, 2200, 0.25, 0.6), "B": (0.12, 0.2, 900, 0.0, 0.5),
    "D": (0.12, 0.25, 3800, 0.2, 0.45), "G": (0.12, 0.25, 2000, 0.25, 0.5),
    "CH": (0.0, 0.55, 3400, 0.2, 0.7), "JH": (0.15, 0.4, 3200, 0.2, 0.6),
}  # fmt: skip
_STOPS = {"P", "T", "K", "B", "D", "G", "CH", "JH"}
_SONORANT_FORMANTS = {
    "M": (260, 1000, 2200), "N": (260, 1500, 2500), "NG": (260, 1900, 2600),
    "L": (360, 1100, 2700), "R": (400, 1250, 1650), "W": (300, 700, 2200),
}  # fmt: skip

# The twelve CREMA-D sentences and the two of RAVDESS.
SENTENCES = {
    "IEO": "IH T S IH L EH V AH N AH K L AA K",
    "TIE": "DH AE T IH Z IH G Z AE K T L IY W AH T HH AE P AH N D",
    "IOM": "AY M AA N M AY W EY T UW DH AH M IY T IH NG",
    "IWW": "AY W AH N D ER W AH T DH IH S IH Z AH B AW T",
    "TAI": "DH IY EH R P L EY N IH Z AO L M OW S T F UH L",
    "MTI": "M EY B IY T AH M AA R OW IH T W IH L B IY K OW L D",
    "IWL": "AY W UH D L AY K AH N UW AH L AA R M K L AA K",
    "ITH": "AY TH IH NG K AY HH AE V AH D AA K T ER Z AH P OY N T M AH N T",
    "DFA": "D OW N T F ER G EH T AH JH AE K AH T",
    "ITS": "AY TH IH NG K AY V S IY N DH IH S B IH F AO R",
    "TSI": "DH AH S ER F AH S IH Z S L IH K",
    "WSI": "W IY L S T AA P IH N AH K AH P AH L AH V M IH N AH T S",
    "01": "K IH D Z AA R T AO K IH NG B AY DH AH D AO R",
    "02": "D AO G Z AA R S IH T IH NG B AY DH AH D AO R",
}


@dataclass(frozen=True)
class Articulation:
    """Controls of one utterance at `STEP`, all of length K: formants float64 [K, 3] Hz (of an
    adult man), loudness of the voice and of the noise, centre of the noise (Hz), opening and
    rounding of the lips (0..1), accent (0..1, peaks on syllables), and spoken (0..1 within the
    utterance: its progress; 0 before, 1 after)."""

    formants: np.ndarray
    voice: np.ndarray
    noise: np.ndarray
    noise_center: np.ndarray
    opening: np.ndarray
    rounding: np.ndarray
    accent: np.ndarray
    spoken: np.ndarray


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    size = 2 * round(seconds / STEP / 2) + 1
    kernel = np.hanning(size + 2)[1:-1]
    padded = np.pad(track, size // 2, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def articulate(
    sentence: str, start: float, length: float, seconds: float, rng: np.random.Generator
) -> Articulation:
    """Times the phones of `sentence` from `start` on for `length` seconds, in `seconds` of clip."""
    phones = SENTENCES[sentence].split()
    spans = np.array([_CONSONANTS[p][4] if p in _CONSONANTS else 1.0 for p in phones])
    spans *= rng.uniform(0.88, 1.12, len(spans))
    spans[-2:] *= 1.2  # final lengthening
    edges = start + length * np.concatenate([[0.0], np.cumsum(spans)]) / spans.sum()
    count = round(seconds / STEP)
    marks = np.clip(np.rint(edges / STEP).astype(int), 0, count)

    formants = np.tile(np.array((500.0, 1450.0, 2450.0)), (count, 1))
    voice, noise, center = np.zeros(count), np.zeros(count), np.full(count, 3000.0)
    opening, rounding, accent = np.zeros(count), np.zeros(count), np.zeros(count)
    for phone, a, b in zip(phones, marks[:-1], marks[1:], strict=True):
        if b <= a:
            continue
        if phone in _CONSONANTS:
            loud, hiss, hiss_center, lips, _ = _CONSONANTS[phone]
            voice[a:b], noise[a:b], center[a:b], opening[a:b] = loud, hiss, hiss_center, lips
            if phone in _STOPS:  # closure, then the burst
                noise[a : a + max(1, int(0.6 * (b - a)))] = 0.0
            if phone in _SONORANT_FORMANTS:
                formants[a:b] = _SONORANT_FORMANTS[phone]
            elif a > 0:
                formants[a:b] = formants[a - 1]
        else:
            first, last = _GLIDES.get(phone, (phone, phone))
            way = np.linspace(0, 1, b - a)[:, None]
            formants[a:b] = (1 - way) * _VOWELS[first] + way * np.array(_VOWELS[last])
            voice[a:b] = 1.0
            opening[a:b] = np.clip((formants[a:b, 0] - 150) / 520, 0.2, 1.0)
            accent[a:b] = np.sin(np.pi * np.linspace(0, 1, b - a)) * rng.uniform(0.4, 1.0)
        rounding[a:b] = _ROUND.get(phone, _ROUND.get(_GLIDES.get(phone, ("", ""))[1], 0.0))
    formants = np.stack([_smooth(f, 0.05) for f in formants.T], axis=1)
    times = (np.arange(count) + 0.5) * STEP
    return Articulation(
        formants=formants,
        voice=_smooth(voice, 0.03),
        noise=_smooth(noise, 0.015),
        noise_center=center,
        opening=_smooth(opening, 0.09),
        rounding=_smooth(rounding, 0.12),
        accent=_smooth(accent, 0.06),
        spoken=np.clip((times - start) / length, 0, 1),
    )
