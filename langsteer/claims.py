"""Claims on numbered pieces: no two jobs do the same one.

Example::

    with at_work(folder), closing(Claims(folder)) as claims:
        if claims.take(7): ...
"""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

CLAIMS = ".claims"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Claims:
    """Claims of processes on pieces, as locks on single bytes of one file in the folder.

    The system drops them with their process. On a file system without locks every claim succeeds:
    two jobs then do a piece twice, with the same result.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / CLAIMS).open("a+b")

    def take(self, number: int) -> bool:
        """Claim a piece; False if another process has it."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, 1 + number)

    def release(self, number: int) -> None:
        """Give a piece back."""
        self._lock(fcntl.LOCK_UN, 1 + number)

    def join(self, tidy: Callable[[], None]) -> bool:
        """Count as a job of the folder until closed; returns whether it is the only one.

        Args:
            tidy: called if it is, before another job can join.
        """
        # Exclusive means nobody else is here: only then may leftovers be removed.
        alone = self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, 0)
        if alone:
            tidy()
        # Shared with the jobs to come, and dropped by the system if this one is killed.
        self._lock(fcntl.LOCK_SH, 0)
        return alone

    def _lock(self, kind: int, place: int) -> bool:
        try:
            fcntl.lockf(self._file, kind, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def close(self) -> None:
        """Give everything back."""
        self._file.close()


@contextmanager
def at_work(folder: Path, tidy: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Count as a job of a folder within the block, and yield whether it is the only one.

    Args:
        folder: of the pieces.
        tidy: removes half-written files of killed jobs; called if no other job is at work.
    """
    with closing(Claims(folder)) as claims:
        yield claims.join(tidy)
