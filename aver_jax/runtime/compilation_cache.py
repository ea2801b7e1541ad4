"""One bounded cache on disk for the compiled functions of every command."""

import hashlib
import os
import platform
from pathlib import Path

import jax

# Of all entries together; the least recently used go first. A training leaves about 20 MB.
MAX_BYTES = 10**9
# What compiles faster is compiled again: reading an entry takes longer than this.
_MIN_SECONDS = 0.05


def use_compilation_cache(folder: Path | None = None) -> Path | None:
    """Makes jax store compiled functions in a folder, and find those of earlier processes there.

    An entry's name is a hash of the function, the options and the versions, so none is ever stale;
    processes may share the folder (jax locks it, which needs the package filelock). Functions for
    CPUs lie in a folder for each kind of CPU: they may hold instructions that another lacks.

    Nothing is changed where jax already has a folder (JAX_COMPILATION_CACHE_DIR or `jax.config`; an
    empty one means none), or is told to store nothing (JAX_ENABLE_COMPILATION_CACHE=false); nor
    where the folder cannot be written.

    Args:
      folder: default: aver_jax in $XDG_CACHE_HOME, or in ~/.cache.

    Returns:
      The folder of the entries, or None where jax was left as it is.
    """
    config = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return None
    backend = jax.default_backend()
    try:
        folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        entries = folder / "aver_jax" / (f"cpu_{_cpu()}" if backend == "cpu" else backend)
        entries.mkdir(parents=True, exist_ok=True)
        if not os.access(entries, os.W_OK):
            return None
        for entry in entries.glob("*-cache"):
            # Left by a process that was killed as it began to write: jax would never replace it.
            if entry.stat().st_size == 0:
                entry.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    config.update("jax_compilation_cache_dir", str(entries))
    config.update("jax_compilation_cache_max_size", MAX_BYTES)
    if config.jax_persistent_cache_min_compile_time_secs == 1.0:  # jax's default
        config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    return entries


def _cpu() -> str:
    """Returns a short name for this kind of CPU: a hash of what it says it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told = sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))})
    except OSError:
        told = []
    text = "\n".join([platform.machine(), platform.processor(), *told])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
