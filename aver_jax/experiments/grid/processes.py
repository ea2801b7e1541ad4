"""The cells of a grid dealt to several processes, each with its own share of the CPU cores.

For small networks two processes of one thread each are faster than one of two threads. Every fold
and seed of an aggregator and variant stays in one process, with all its networks: late fusion
finds the runs it is built from, and each process compiles a network once.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

from aver_jax.errors import UserError
from aver_jax.experiments.grid.trainings import Cell, Grid, check_cells, run_cells
from aver_jax.runtime.preemption import StopSignal
from data_prep.workers import available_cores, interrupts_blocked


def deal(cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Returns the cells of each process, in the order given; no process is without work."""
    groups = list(dict.fromkeys(map(_group, cells)))
    worker_of = {group: number % workers for number, group in enumerate(groups)}
    shares = [[c for c in cells if worker_of[_group(c)] == worker] for worker in range(workers)]
    return [share for share in shares if share]


def check_workers(workers: int) -> None:
    """Raises UserError unless there is a core for every process."""
    cores = available_cores()
    if not 1 <= workers <= cores:
        raise UserError(f"--workers is {workers}; expected 1 to {cores}, the cores there are")


def run_in_processes(grid: Grid, cells: Sequence[Cell], workers: int) -> None:
    """Does what `run_cells` does, in several processes.

    Raises:
      UserError: what stopped one of them; the others finish their work first.
      SystemExit: a signal asked to stop; the running cells were saved.
    """
    shares = deal(cells, workers)
    if len(shares) <= 1:
        run_cells(grid, cells)
        return
    check_cells(grid, cells)
    # A forked child would inherit the threads and locks of jax.
    context = multiprocessing.get_context("spawn")
    failures = context.SimpleQueue()
    processes = []
    with StopSignal().listening() as stop:
        for number, share in enumerate(shares):
            process = context.Process(target=_work, args=(grid, share, cells, failures))
            with _cores_of(number, len(shares)), interrupts_blocked():
                process.start()
            processes.append(process)
        _wait(processes, stop)
    if stop.number:
        raise SystemExit(128 + stop.number)
    if not failures.empty():
        raise UserError(failures.get())
    for process in processes:
        if process.exitcode:
            raise UserError(
                f"a worker process ended with exit code {process.exitcode} (out of memory?); "
                "run the study again, with fewer --workers"
            )


def _group(cell: Cell) -> tuple:
    return cell.aggregator, cell.variant, cell.seed, cell.fold


def _wait(processes, stop: StopSignal) -> None:
    """Waits until all have ended; a signal to this process is passed on once."""
    passed_on = False
    running = list(processes)
    while running:
        wait([process.sentinel for process in running], timeout=0.2)
        running = [process for process in running if process.is_alive()]
        if stop.number and not passed_on:
            for process in running:
                process.terminate()
            passed_on = True


def _work(grid: Grid, cells: Sequence[Cell], study: Sequence[Cell], failures) -> None:
    # As in the parent: libraries tell of their own affairs there.
    logging.getLogger("absl").setLevel(logging.ERROR)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        run_cells(grid, cells, study=study)
    except UserError as error:
        # At once: the other processes may take hours until they end.
        print(f"a worker stopped: {error}", file=sys.stderr, flush=True)
        failures.put(str(error))
        raise SystemExit(2) from None


def _stop_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _cores_of(number: int, count: int):
    """Processes started inside may use the number-th of `count` shares of the cores.

    They are born with it: XLA sizes its thread pools by the cores it finds.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    everything = sorted(os.sched_getaffinity(0))
    first, last = (len(everything) * n // count for n in (number, number + 1))
    os.sched_setaffinity(0, everything[first:last])
    try:
        yield
    finally:
        os.sched_setaffinity(0, everything)
