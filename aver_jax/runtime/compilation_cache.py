"""Compiled programs kept on disk, so that the next training starts in seconds."""

import hashlib
import platform
from pathlib import Path

import jax

FOLDER = ".jax_cache"
# Programs that compile faster are not worth a file.
_MIN_SECONDS = 0.3


def keep_compiled(folder: Path) -> Path | None:
    """Makes jax keep compiled programs below a folder, and find those of earlier processes there.

    An entry's name is a hash of the program, the options and the versions; trainings may share the
    folder at the same time, since an entry that cannot be read is compiled again. Programs for CPUs
    lie in a folder for each kind of CPU: they may hold instructions that another lacks.

    Nothing is changed where jax is already told of a folder (JAX_COMPILATION_CACHE_DIR or
    `jax.config`; an empty one means none), or told to keep nothing
    (JAX_ENABLE_COMPILATION_CACHE=false); nor where the folder cannot be written.

    Args:
      folder: where `FOLDER` is made.

    Returns:
      The folder of the entries, or None where jax was left as it is.
    """
    config = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return None
    backend = jax.default_backend()
    entries = folder.resolve() / FOLDER / (f"cpu_{_cpu()}" if backend == "cpu" else backend)
    try:
        entries.mkdir(parents=True, exist_ok=True)
        ignore = entries.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        for entry in entries.glob("*-cache"):
            # Left by a process that was killed as it began to write: jax would never replace it.
            if entry.stat().st_size == 0:
                entry.unlink(missing_ok=True)
    except OSError:
        return None
    config.update("jax_compilation_cache_dir", str(entries))
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
