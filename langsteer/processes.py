"""Worker processes that count the cores they may use and never outlive their parent.

Example::

    with ProcessPoolExecutor(default_workers(), context, end_with_parent, (os.getpid(),)) as pool:
        ...
"""

import os
import threading
import time

MAX_DEFAULT_WORKERS = 8
_POLL_SECONDS = 0.2


def default_workers() -> int:
    """One process for each core that this one may use, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MAX_DEFAULT_WORKERS, cores or 1)


def end_with_parent(parent: int) -> None:
    """End this process soon after process ``parent``, its parent, was killed.

    A parent that gets SIGKILL cannot tell its workers to stop; they would wait for work forever.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
