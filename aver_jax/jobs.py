"""The jobs by name: which module does each, and how its words become a call."""

import argparse
import atexit
import gc
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from aver_jax.runtime.cpu_allocator import computes_on_cpu, keep_freed_memory

# Job -> (module with add_arguments(parser) and run(args[, overrides]), one line of help). The
# modules of the jobs that train or predict import jax, which takes a second: only when asked for.
JOBS = {
    "prepare": ("data_prep.cli", "media files to a dataset (or render the synthetic corpus)"),
    "audit": ("aver_jax.audit.job", "what trivial models reach on a dataset"),
    "train": ("aver_jax.training.job", "dataset and config to a run folder"),
    "evaluate": ("aver_jax.evaluation.job", "scores of a run on clips it has not seen"),
    "predict": ("aver_jax.prediction.job", "emotions in your own clips, with overlays"),
    "explain": (
        "aver_jax.prediction.explain_job",
        "what a prediction depends on, by every method: a page with a gallery of each clip",
    ),
    "experiments": (
        "aver_jax.experiments.cli",
        "many trainings compared, or a run's relevance tested, with a results page",
    ),
    "bench": ("aver_jax.bench.cli", "clips per second on this machine, against its limits"),
    "compile": ("aver_jax.chips.job", "what a program would cost on a GPU or TPU that is not here"),
    "demo": ("aver_jax.demo", "the whole way on a rendered corpus, ending with a report"),
}


def run_job(job: str, words: Sequence[str]) -> int:
    """Runs a job as `aver JOB WORDS` does and returns its exit code.

    Args:
      job: a key of `JOBS`.
      words: the words after the job's name.

    Raises:
      UserError: something the user can put right.
      SystemExit: wrong flags (2), or --help (0).
    """
    if job not in ("prepare", "audit") and computes_on_cpu():
        keep_freed_memory()
    module = _imported(JOBS[job][0])
    parser = argparse.ArgumentParser(
        prog=f"aver {job}", description=module.__doc__, allow_abbrev=False
    )
    module.add_arguments(parser)
    if job in ("train", "experiments", "compile"):
        # Fields of the config are flags that no parser can list beforehand.
        args, overrides = parser.parse_known_args(words)
        return module.run(args, overrides)
    return module.run(parser.parse_args(words))


def _imported(name: str) -> ModuleType:
    """Returns a module; in a process that begins with it, no garbage is collected meanwhile.

    What imports leave stays for good. Not looking through it, then and when the process ends, saves
    a sixth of the time of a short command.
    """
    if "jax" in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
