"""Worker processes, as many as there are cores to use; none outlives its parent.

Example::

    with doers(partial(Writer, path), default_workers()) as do_all:
        for number, result in do_all(range(100)): ...
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, Protocol, TypeVar

from langsteer.errors import UserError

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MAX_DEFAULT_WORKERS = 8
_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Spawned and not forked: libraries have threads, and a fork would not take them along.
CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def worker_pool(
    workers: int, set_up: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each set up by ``set_up(*arguments)``; all end with the block.

    An interrupt ends them in the middle of their work, since a person waits. Work must stand that
    anyway: a killed parent takes its workers along.

    Raises:
        UserError: a worker was killed.
    """
    abandoned = CONTEXT.Event()
    start = (set_up, arguments, os.getpid(), abandoned)
    with ProcessPoolExecutor(workers, CONTEXT, _start, start) as pool:
        try:
            yield pool
        # The pool only knows that a process is gone; a kill for want of memory is the common
        # reason.
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, mostly for want of memory; run the same command "
                "again with fewer workers (num_workers), it goes on where it stopped"
            ) from error
        except KeyboardInterrupt:
            abandoned.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(
    set_up: Callable[..., None], arguments: tuple[Any, ...], parent: int, abandoned: Event
) -> None:
    # At once, before any piece: what a killed parent had handed out must not be begun.
    end_with_parent(parent, abandoned.is_set)
    set_up(*arguments)


def default_workers() -> int:
    """One process for each usable core, 8 at most."""
    return min(MAX_DEFAULT_WORKERS, usable_cores())


def usable_cores() -> int:
    """Number of cores for this process; all of the machine if the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_workers(num_workers: int | None, pieces: int) -> int:
    """Number of processes for so many pieces; None is one for each core, 8 at most.

    Raises:
        UserError: fewer than one is asked for.
    """
    if num_workers is None:
        num_workers = default_workers()
    if num_workers < 1:
        raise UserError(f"num_workers={num_workers}: expected a whole number from 1 on")
    return max(1, min(num_workers, pieces))


def end_with_parent(parent: int, abandoned: Callable[[], bool] = lambda: False) -> None:
    """End this process soon after its ``parent`` was killed, or ``abandoned`` says True.

    A parent gets no chance to tell its workers of a SIGKILL; they would wait for work forever.
    """
    _have_the_system_end_us()
    if os.getppid() != parent:  # it was killed before the system was asked
        os._exit(1)
    threading.Thread(target=_watch, args=(parent, abandoned), daemon=True).start()


def _have_the_system_end_us() -> None:
    """Ask Linux to kill this process with the thread of the parent that made it.

    The system does it at once. A thread of our own would wait for long C code that holds Python's
    lock, and for its turn on a loaded machine.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch(parent: int, abandoned: Callable[[], bool]) -> None:
    while os.getppid() == parent and not abandoned():
        time.sleep(_POLL_SECONDS)
    os._exit(1)


class Worker(Protocol[R_co]):
    """Does pieces, one after the other; each process makes one."""

    def do(self, number: int) -> R_co:
        """Piece ``number``: write its other files and return its result."""

    def close(self) -> None:
        """Let go of its resources."""


DoAll = Callable[[Iterable[int]], Iterator[tuple[int, R]]]
"""Does numbered work and yields number and result, whatever is finished first."""


@contextmanager
def doers(
    make_worker: Callable[[], Worker[R]], count: int, tick: Callable[[], object] = lambda: None
) -> Iterator[DoAll[R]]:
    """Workers for the block: one in this process, or several in processes of their own.

    Args:
        make_worker: called in each process; picklable for several.
        count: how many.
        tick: called several times a second while processes work, e.g. to show their progress.

    Raises:
        UserError: a worker cannot be made, or its process was killed.
    """
    if count == 1:
        with closing(make_worker()) as worker:
            yield lambda numbers: ((number, worker.do(number)) for number in numbers)
    else:
        with worker_pool(count, _start_worker, (make_worker,)) as pool:
            yield partial(_do_in_pool, pool, tick)


def _do_in_pool(
    pool: Executor, tick: Callable[[], object], numbers: Iterable[int]
) -> Iterator[tuple[int, Any]]:
    pending = {pool.submit(_do, number): number for number in numbers}
    while pending:
        finished, _ = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
        tick()
        for future in finished:
            yield pending.pop(future), future.result()


class _Process:
    """A worker process: how to make its worker, and the worker once the first piece came."""

    make_worker: Callable[[], Worker[Any]]
    worker: Worker[Any] | None = None


def _start_worker(make_worker: Callable[[], Worker[Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    _Process.make_worker = make_worker


def _do(number: int) -> Any:  # noqa: ANN401 - the worker's result
    # Made here and not at the start: an error there would only be reported as a broken pool.
    if _Process.worker is None:
        _Process.worker = _Process.make_worker()
    return _Process.worker.do(number)
