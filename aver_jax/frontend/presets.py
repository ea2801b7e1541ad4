"""Ready-made augmentations of frames, for `config.frontend.augment`; `augment.OFF` explains them.

There are none of sound: the thesis states no change of it but its random time slices (4.5.2,
5.3.3), which `config.data.min_slice` cuts.
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
