"""The one error that a user can mend, and how a command shows it.

Example::

    @exits_cleanly
    def main() -> None:
        raise UserError("data/x.zarr: no such store; convert the dataset first")
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Bad input: the message names the file, what was found, what was expected and what to do."""


def exits_cleanly(main: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command's main: a `UserError` prints its message and exits with status 2.

    Every other exception keeps its traceback, since it is a fault of ours and not of the input.
    An interrupt from the keyboard exits with 130, as shells expect.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
