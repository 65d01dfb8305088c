"""Worker processes that count the cores they may use and never outlive their parent.

Example::

    with worker_pool(default_workers(), set_up, (path,)) as pool:
        futures = [pool.submit(work, number) for number in range(100)]
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

from langsteer.errors import UserError

MAX_DEFAULT_WORKERS = 8
_POLL_SECONDS = 0.2

# Spawned and not forked: libraries have threads, which a fork would not take along.
CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def worker_pool(
    workers: int, set_up: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each set up by ``set_up(*arguments)``; all end with the block.

    An interrupt ends them where they are, since a person waits; work must stand that anyway, for a
    killed parent takes its workers along.

    Raises:
        UserError: a worker was killed.
    """
    abandoned = CONTEXT.Event()
    start = (set_up, arguments, os.getpid(), abandoned)
    with ProcessPoolExecutor(workers, CONTEXT, _start, start) as pool:
        try:
            yield pool
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
    end_with_parent(parent, abandoned.is_set)
    set_up(*arguments)


def default_workers() -> int:
    """One process for each core that this one may use, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MAX_DEFAULT_WORKERS, cores or 1)


def end_with_parent(parent: int, abandoned: Callable[[], bool] = lambda: False) -> None:
    """End this process soon after ``parent``, its parent, was killed, or ``abandoned`` says True.

    A parent that gets SIGKILL cannot tell its workers to stop; they would wait for work forever.
    """
    threading.Thread(target=_watch, args=(parent, abandoned), daemon=True).start()


def _watch(parent: int, abandoned: Callable[[], bool]) -> None:
    while os.getppid() == parent and not abandoned():
        time.sleep(_POLL_SECONDS)
    os._exit(1)
