"""Ready-made augmentations: of frames for `config.frontend.augment`, of sound for `.sound`.

Their fields are explained by `augment.OFF` and `sound.OFF`.
"""

# Chang's thesis, 4.2.2: what it applies to face images.
THESIS = {
    "flip": 0.5,
    "crop": 0.1,
    "scale": (0.9, 1.1),
    "translate": 0.1,
    "rotate": 25.0,
    "shear": 8.0,
    "blur": 0.5,
    "blur_sigma": 0.5,
    "contrast": (0.75, 1.5),
    "noise": 25.0,
}

# For some hundred clips and a small model: the thesis' amounts of rotation and noise cost such a
# model more than they teach it.
SMALL_CORPUS = {
    "flip": 0.5,
    "scale": (0.9, 1.1),
    "translate": 0.08,
    "rotate": 5.0,
    "contrast": (0.8, 1.25),
}

# The thesis states no change of sound but its random time slices (4.5.2, 5.3.3), which
# `config.data.min_slice` cuts.
THESIS_SOUND = {}

# For some hundred clips: level and background, which say nothing of the emotion in a recording
# under other conditions, and a narrow mask along each axis. Moderate by choice, not by a search.
SMALL_CORPUS_SOUND = {
    "gain": 6.0,
    "noise": 0.5,
    "snr": (15.0, 40.0),
    "time_masks": 1,
    "time_width": 0.1,
    "frequency_masks": 1,
    "frequency_width": 0.1,
}
