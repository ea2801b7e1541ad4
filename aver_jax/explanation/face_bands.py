"""Eyes, nose and mouth of a face crop as horizontal bands, and their combinations.

A band goes from one side of the crop to the other, like a mask over the face (du Toit 2022, section
3): a feature narrower than the face cannot tell by its outline what is behind it.
"""

import itertools

import numpy as np

# Top and bottom of each part as shares of the height of a face box (of the embedded detector, brows
# with the eyes; checked by eye on rendered faces and on clips of CREMA-D).
FACE_SHARES = {"eyes": (0.18, 0.50), "nose": (0.50, 0.69), "mouth": (0.69, 0.95)}
CASES = tuple(
    parts
    for count in range(len(FACE_SHARES) + 1)
    for parts in itertools.combinations(FACE_SHARES, count)
)


def band_rows(part: str, side: int, margin: float) -> tuple[int, int]:
    """Returns the first row of a part's band in a crop, and the one after its last.

    The crop is the square around the face box, `margin` times as long (`prepare --margin`), and the
    box is near square: rows of the box are rows of the crop's middle.

    Args:
      part: a key of `FACE_SHARES`.
      side: of the crop in pixels.
      margin: side of the crop in units of the longer side of the face box.
    """
    top, bottom = (0.5 + (share - 0.5) / margin for share in FACE_SHARES[part])
    return max(0, round(top * side)), min(side, round(bottom * side))


def band_masks(side: int, margin: float) -> np.ndarray:
    """Returns what each of `CASES` occludes: bool [8,side], True for rows of the crop."""
    masks = np.zeros((len(CASES), side), bool)
    for mask, parts in zip(masks, CASES, strict=True):
        for part in parts:
            first, end = band_rows(part, side, margin)
            mask[first:end] = True
    return masks


def words_of(parts: tuple[str, ...]) -> str:
    """Returns a case in words: "eyes + mouth", "nothing"."""
    return " + ".join(parts) or "nothing"
