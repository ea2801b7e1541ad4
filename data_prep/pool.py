"""Clips prepared by several processes: in order, in bounded memory, outliving a dying worker."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

from data_prep.clip import Job, Preparation, prepare_clip
from data_prep.errors import UnusableClip, UserError
from data_prep.workers import interrupts_blocked, worker_pool

# Finished records wait for their turn to be written; this many per worker at most.
_AHEAD = 3
# Beyond this it is the machine, not the clips.
_MOST_DEATHS = 20


def prepared_clips(
    jobs: Iterable[Job], preparation: Preparation, workers: int
) -> Iterator[tuple[Job, dict | UnusableClip]]:
    """Yields every job with its record, or with the reason why there is none, in order.

    Args:
      jobs: the clips.
      preparation: passed to `prepare_clip`.
      workers: number of processes; 0 prepares in this one.
    """
    if workers == 0:
        for job in jobs:
            yield job, _attempt(job, preparation)
        return
    waiting = deque(jobs)
    deaths = 0
    while waiting:
        yield from _until_broken(waiting, preparation, workers, workers * _AHEAD)
        # A worker died (killed for memory, or a fault in a codec), and the pool with it. Its clip
        # is among the next few: alone in a pool, it shows itself.
        for _ in range(min(len(waiting), workers * _AHEAD)):
            job = waiting[0]
            yield from _until_broken(waiting, preparation, 1, 1, limit=1)
            if waiting and waiting[0] is job:
                deaths += 1
                if deaths > _MOST_DEATHS:
                    raise UserError(
                        f"{deaths} worker processes died, expected them to outlive a bad clip; "
                        "free some memory or use fewer --workers"
                    )
                yield waiting.popleft(), UnusableClip("its worker process died (out of memory?)")


def _until_broken(
    waiting: deque[Job],
    preparation: Preparation,
    workers: int,
    ahead: int,
    limit: int | None = None,
) -> Iterator[tuple[Job, dict | UnusableClip]]:
    """Prepares from the left of `waiting`; returns early, leaving the rest, if a worker dies."""
    left = len(waiting) if limit is None else limit
    running: deque[Future] = deque()
    with worker_pool(workers) as executor:
        try:
            while left:
                while len(running) < min(ahead, left):
                    job = waiting[len(running)]
                    with interrupts_blocked():
                        running.append(executor.submit(_attempt, job, preparation))
                result = running.popleft().result()
                left -= 1
                yield waiting.popleft(), result
        except BrokenProcessPool:
            return


def _attempt(job: Job, preparation: Preparation) -> dict | UnusableClip:
    try:
        return prepare_clip(job, preparation)
    except UnusableClip as reason:
        return reason
    except UserError:
        raise
    except MemoryError:
        return UnusableClip("needs more memory than there is")
    except Exception as error:
        # One strange file must not end a run over thousands.
        return UnusableClip(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")
