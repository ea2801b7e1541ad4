"""The largest batch that fits into the memory of a chip, found by bisection."""

from collections.abc import Callable

# More clips on a device than this are no question of memory.
MOST = 4096


def largest_batch(start: int, devices: int, fits: Callable[[int], bool]) -> int | None:
    """Returns the largest batch that fits, to within an eighth.

    Args:
      start: a batch size to begin with, divisible by `devices`.
      devices: that share a batch evenly, times the parts of an accumulated step.
      fits: says of a batch size whether it fits; asked about six times.

    Returns:
      A multiple of `devices`; None where one clip a device does not fit.
    """
    low, high = 0, None  # clips a device: the largest that fits, the smallest that does not
    each = max(1, start // devices)
    while high is None and low < MOST:
        if fits(each * devices):
            low, each = each, 2 * each
        else:
            high = each
    while high is not None and high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * devices) else (low, middle)
    return low * devices or None
