"""Memory of the CPU backend: kept between steps instead of being asked of the kernel anew."""

import ctypes
import glob
import os
import sys

# Device files of NVIDIA and AMD GPUs and of TPUs.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1  # bytes, the largest value mallopt takes


def computes_on_cpu() -> bool:
    """Returns whether jax will compute on this host's CPU, told without starting jax."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def keep_freed_memory() -> bool:
    """Tells glibc to hold on to what this process frees; False where it cannot be told.

    XLA on a CPU takes the temporary arrays of a step in one piece and frees it afterwards. glibc
    returns pieces of that size to the kernel, which hands them out again as zeroed pages, one
    fault per 4 KB: about a sixth of a step of a small TimeSformer (docs/benchmarks/log.md). The
    price is that the process stays as large as it ever was, and somewhat larger. To be called
    before the backend starts its threads: those that have an arena of their own keep it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # One arena is a price for threads that is paid only where the others are taken.
    settings = ((_MMAP_THRESHOLD, _NEVER), (_TRIM_THRESHOLD, _NEVER), (_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
