"""Worker processes that neither outlive their parent nor act on its Ctrl-C themselves."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Opens a pool of spawned processes; leaving the block by an exception ends them at once.

    Work is submitted within `interrupts_blocked`, since submitting starts processes.
    """
    # A forked child would inherit the threads and locks of whatever runs here.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield executor
    except BaseException:
        # The executor first drops what waits: its thread trips over cancelled work if it
        # learns of a dead worker before.
        executor.shutdown(wait=False, cancel_futures=True)
        started = set(multiprocessing.active_children()) - others
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes started inside are born deaf to Ctrl-C: it reaches the whole group, and the
    parent, which gets it right after, ends its workers itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def available_cores() -> int:
    """Returns CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
