"""The error a user can mend, and how a command shows it.

Example::

    @exits_cleanly
    def main() -> None:
        raise UserError("data/x.zarr: no such store; convert the dataset first")
"""

import errno
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from langsteer.interruption import Terminated

P = ParamSpec("P")

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141
"""A shell's status for a command ended by SIGPIPE."""
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATH_IS_WRONG = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_MOST_CHARACTERS = 4000
"""Of a message, about a page."""


class UserError(Exception):
    """Bad input: the message names the file, what was found, what was expected and what to do.

    A message of more than a page loses its middle. It repeats a value of a hostile file, or a
    library's own message does; the file stands at its beginning and the remedy at its end.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _MOST_CHARACTERS:
            half = _MOST_CHARACTERS // 2
            message = f"{message[:half]} [...] {message[-half:]}"
        super().__init__(message)


def exits_cleanly(main: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command's main: a `UserError` prints its message and exits with status 2.

    So does a full or failing disk, at any line that writes. Every other exception keeps its
    traceback: it is a fault of ours and not of the input. An interrupt from the keyboard exits with
    130, and SIGTERM during resumable work with 143, as shells expect. If a reader of the output,
    such as ``head``, has seen enough, the command ends without a word.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        _write_all_characters()
        try:
            _write_to_the_end(main, *args, **kwargs)
        except BrokenPipeError:
            # The buffer has nowhere to go, and would be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_NO_READER)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except OSError as error:
            problem = _problem_of_the_disk(error)
            if problem is None:
                raise
            print(f"error: {problem}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt as stop:
            terminated = isinstance(stop, Terminated)
            print("terminated" if terminated else "interrupted", file=sys.stderr)
            sys.exit(143 if terminated else EXIT_INTERRUPTED)

    return wrapped


def _write_all_characters() -> None:
    """Have the output escape what it cannot encode, e.g. of a file's name, rather than fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _write_to_the_end(main: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run ``main``, and then write the buffered output, even on an exit."""
    try:
        main(*args, **kwargs)
    finally:
        sys.stdout.flush()


def _problem_of_the_disk(error: OSError) -> str | None:
    """The user's remedy for an error of the file system, or None."""
    place = "" if error.filename is None else f"{error.filename}: "
    if error.errno in _DISK_IS_FULL:
        return (
            f"{place}{error.strerror}; make room, or let the command write to another disk. What "
            "it finished is kept"
        )
    if error.errno in _PATH_IS_WRONG and error.filename is not None:
        return f"{place}{error.strerror}; name a file or folder that can be written"
    return None
