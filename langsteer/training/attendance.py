"""Name the rank that keeps the others waiting, and end a run after too long a wait.

A collective of PyTorch waits in silence for a stopped, swapped-out or hanging rank. So each rank
writes into the store of the rendezvous how many meetings it has come to, and a sign of life. A
thread does this, so a rank can still write while it waits.

Example::

    with attendance(rank, world_size, store, timeout=600):
        arrived()       # before each meeting with the other ranks
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import distributed as dist

from langsteer.errors import EXIT_USER_ERROR

NOTICE_SECONDS = 60.0
"""A wait of this length is reported; a shorter one if ``timeout`` is less than two of them."""
_BEAT_SECONDS = 1.0
# A store that hangs would hold this rank for longer.
_LEAVING_SECONDS = 5.0
_GONE = "gone"


class _Arrivals:
    count = 0


def arrived() -> None:
    """Count a meeting of this rank; all ranks come to the same ones in order."""
    _Arrivals.count += 1


@contextmanager
def attendance(rank: int, world_size: int, store: dist.Store, timeout: float) -> Iterator[None]:
    """Watch over the ranks for the block.

    Args:
        rank, world_size: of this process, and number of all.
        store: of the rendezvous, by a connection of its own.
        timeout: seconds until a waiting rank ends its process with status 2.
    """
    _Arrivals.count = 0
    watch = _Watch(rank, world_size, store, timeout)
    watch.start()
    try:
        yield
    finally:
        watch.leave()


class _Watch:
    """Two threads: one talks to the store and may hang with it, the other counts the seconds."""

    def __init__(self, rank: int, world_size: int, store: dist.Store, timeout: float) -> None:
        self._rank, self._world_size = rank, world_size
        self._store, self._timeout = store, timeout
        self._notice = min(NOTICE_SECONDS, timeout / 2)
        self._over = threading.Event()
        self._last: dict[int, str] = {}
        self._silent = dict.fromkeys(range(world_size), 0.0)
        self._late = dict.fromkeys(range(world_size), 0.0)
        self._said: set[int] = set()
        self._counts = dict.fromkeys(range(world_size), -1)
        self._talks = 0
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._talk, self._watch)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """End, and tell the others not to wait for this rank."""
        self._over.set()
        # A call to the store that returns while Python shuts down would abort the process.
        for thread in self._threads:
            thread.join(_LEAVING_SECONDS)
        with suppress(RuntimeError):  # rank 0, who has the store, may have left before
            self._store.set(self._key(self._rank), _GONE)

    def _key(self, rank: int) -> str:
        return f"attendance{rank}"

    def _talk(self) -> None:
        """Tell and read; ends with the store. The collectives notice its end."""
        beat, keys = 0, [self._key(rank) for rank in range(self._world_size)]
        with suppress(RuntimeError):
            while not self._over.is_set():
                beat += 1
                own = f"{_Arrivals.count} {beat}"
                self._store.set(self._key(self._rank), own)
                for rank, value in enumerate(self._store.multi_get(keys)):
                    self._note(rank, value.decode())
                self._talks += 1
                self._over.wait(_BEAT_SECONDS)
            return
        self._over.set()

    def _note(self, rank: int, value: str) -> None:
        """Take a rank's word; seconds of silence start anew with each change."""
        if self._last.get(rank) == value and value != _GONE:
            return
        self._last[rank], self._silent[rank] = value, 0.0
        count = self._counts[rank] if value == _GONE else int(value.split()[0])
        if count != self._counts[rank] or value == _GONE:
            self._counts[rank], self._late[rank] = count, 0.0

    def _watch(self) -> None:
        before, talks = time.monotonic(), -1
        while not self._over.wait(_BEAT_SECONDS):
            now = time.monotonic()
            # Seconds in which this process itself was stopped count against nobody.
            passed, before = min(now - before, 2 * _BEAT_SECONDS), now
            store_answers, talks = self._talks != talks, self._talks
            for rank in self._silent:
                if store_answers or rank == 0:  # a store that hangs is rank 0's
                    self._silent[rank] += passed
                    self._late[rank] += passed
            self._judge()

    def _judge(self) -> None:
        """Name the missing ranks, and end if it takes too long."""
        own, waiting = self._rank, self._late[self._rank]
        missing: dict[int, float] = {}
        for rank in self._silent:
            if rank == own or self._last.get(rank) == _GONE:
                continue
            is_behind = self._counts[rank] < _Arrivals.count
            seconds = max(self._silent[rank], min(self._late[rank], waiting) if is_behind else 0.0)
            if seconds >= self._notice:
                missing[rank] = seconds
        self._said &= missing.keys()
        for rank in missing.keys() - self._said:
            self._said.add(rank)
            print(
                f"{self._sentence(rank, missing[rank])}; waiting {self._timeout:.0f} s at most "
                "(training.timeout)",
                file=sys.stderr,
                flush=True,
            )
        if missing and max(missing.values()) >= self._timeout:
            rank = max(missing, key=lambda one: missing[one])
            print(
                f"error: {self._sentence(rank, missing[rank])}, longer than training.timeout; its "
                "last checkpoint is kept, training.resume=true goes on from it",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_USER_ERROR)

    def _sentence(self, rank: int, seconds: float) -> str:
        return (
            f"rank {self._rank} of {self._world_size}: rank {rank} has not come for "
            f"{seconds:.0f} s: its process is stopped, swapped out or that much slower, or its "
            "node or file system hangs"
        )
