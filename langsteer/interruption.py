"""Ctrl-C and SIGTERM end resumable work alike: at once, and with a word on what is kept.

Example::

    with interruptible(lambda: f"{len(done)} of 10 episodes are kept"):
        for number in missing: ...
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def interruptible(what_is_kept: Callable[[], str]) -> Iterator[None]:
    """Say what is kept when Ctrl-C or SIGTERM ends the block, and pass the exception on."""
    try:
        with _sigterm_raises():
            yield
    except KeyboardInterrupt as stop:
        name = "SIGTERM" if isinstance(stop, Terminated) else "SIGINT"
        print(f"\n{name}: stopped; {what_is_kept()}", file=sys.stderr, flush=True)
        raise


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """`Terminated` at SIGTERM within the block, where signals are this thread's to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
