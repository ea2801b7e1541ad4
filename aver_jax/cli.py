"""The `aver` command: one sub-command per job, one clear line for an error."""

import logging
import os
import sys
from collections.abc import Sequence

from aver_jax import __version__
from aver_jax.errors import UserError
from aver_jax.jobs import JOBS, run_job


def _usage() -> str:
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {job:<{width}}  {help_}" for job, (_, help_) in JOBS.items())
    return (
        "usage: aver COMMAND [flags]\n\nAudio-video emotion recognition in JAX.\n\n"
        f"commands:\n{jobs}\n\n`aver COMMAND --help` lists a command's flags; `aver --version` the "
        "version."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job and returns its exit code: 0 done, 2 an error the user can put right.

    Args:
      argv: words after "aver"; default: the command line's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _answer(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; nothing more is to be written, also not by
        # the interpreter when it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _answer(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"aver_jax {__version__}")
        return 0
    job, *words = words
    if job not in JOBS:
        print(f"aver: unknown command {job!r}; choose from {', '.join(JOBS)}", file=sys.stderr)
        return 2
    # Libraries tell of their own affairs there (orbax of its options); errors still come through.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return run_job(job, words)
    except UserError as error:
        print(f"aver {job}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        # Without a file's name it is nothing the user could put right.
        if error.filename is None:
            raise
        print(f"aver {job}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\naver {job}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
