"""Which tubelets and frames are occluded: the most, or the least, relevant first."""

import numpy as np

ORDERS = ("most", "least")


def ranks(values: np.ndarray, order: str) -> np.ndarray:
    """Returns the place of every value in its row, int [n,m], 0 the first to be taken.

    Equal values keep the order of their places with "most", and have the reverse with "least":
    "least" is then the exact reverse of "most", also where a map has many zeros.

    Args:
      values: [n,m].
      order: "most" takes the highest first, "least" the lowest.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; expected 'most' or 'least'")
    first = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1, kind="stable")
    return first if order == "most" else values.shape[1] - 1 - first


def tubelet_masks(maps: np.ndarray, shares: tuple[float, ...], order: str) -> np.ndarray:
    """Returns masks bool [n,K,T,h,w] that take a share of all tubelets of a clip each.

    Args:
      maps: float [n,T,h,w].
      shares: K shares of 0 to 1; the number of tubelets is rounded, and at least 1 above 0.
      order: as in `ranks`.
    """
    clips, cells = len(maps), maps[0].size
    place = ranks(maps.reshape(clips, cells), order)
    counts = np.array([max(round(s * cells), 1) if s else 0 for s in shares])
    masks = place[:, None] < counts[None, :, None]
    return masks.reshape(clips, len(shares), *maps.shape[1:])


def frame_masks(maps: np.ndarray, counts: tuple[int, ...], order: str) -> np.ndarray:
    """Returns masks bool [n,K,T,h,w] that take so many whole frames, by their summed relevance.

    Args:
      maps: float [n,T,h,w].
      counts: K numbers of frames.
      order: as in `ranks`.
    """
    place = ranks(maps.sum(axis=(2, 3)), order)
    taken = place[:, None] < np.array(counts)[None, :, None]
    return np.broadcast_to(taken[..., None, None], (*taken.shape, *maps.shape[2:]))
