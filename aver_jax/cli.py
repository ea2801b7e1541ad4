"""The `aver` command: one sub-command per job, each importing only what it needs."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from aver_jax import __version__
from aver_jax.errors import UserError

# Job -> (module with add_arguments(parser) and run(args[, overrides]), one line of help). The
# modules of the jobs that train or predict import jax, which takes a second: only when asked for.
_JOBS = {
    "prepare": ("data_prep.cli", "media files to a dataset (or render the synthetic corpus)"),
    "train": ("aver_jax.train", "dataset and config to a run folder"),
    "evaluate": ("aver_jax.evaluate", "scores of a run on clips it has not seen"),
    "predict": ("aver_jax.predict", "emotions in your own clips, with overlays"),
    "demo": ("aver_jax.demo", "the whole way on a rendered corpus, ending with a report"),
}


def _usage() -> str:
    width = max(map(len, _JOBS))
    jobs = "\n".join(f"  {job:<{width}}  {help_}" for job, (_, help_) in _JOBS.items())
    return (
        "usage: aver JOB [flags]\n\nAudio-video emotion recognition in JAX.\n\n"
        f"jobs:\n{jobs}\n\n`aver JOB --help` lists a job's flags."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job and returns its exit code: 0 done, 2 an error the user can put right.

    Args:
      argv: words after "aver"; default: the command line's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    job, *words = words
    if job == "--version":
        print(f"aver_jax {__version__}")
        return 0
    if job not in _JOBS:
        print(f"aver: no job {job!r}; there are: {', '.join(_JOBS)}", file=sys.stderr)
        return 2
    # Libraries tell of their own affairs there (orbax of its options); errors still come through.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        module = importlib.import_module(_JOBS[job][0])
        parser = argparse.ArgumentParser(
            prog=f"aver {job}", description=module.__doc__, allow_abbrev=False
        )
        module.add_arguments(parser)
        if job == "train":
            # Fields of the config are flags that no parser can list beforehand.
            args, rest = parser.parse_known_args(words)
            return module.run(args, rest)
        return module.run(parser.parse_args(words))
    except UserError as error:
        print(f"aver {job}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\naver {job}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; that is not an error.
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
