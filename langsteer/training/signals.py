"""Asking a running training to save and leave: SIGTERM, SIGUSR1, or Ctrl-C.

Example::

    with StopRequest() as stop:
        while not stop.requested:
            ...
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_PREEMPTED = 75
"""Exit status of a training that saved a checkpoint and left on request: EX_TEMPFAIL of
sysexits.h, "try again later". The same command with ``training.resume=true`` goes on."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_BEFORE_IT_BEGAN = "the training is still starting; it leaves after its first step, and saves that"


def hold_signals() -> None:
    """Keep SIGTERM and SIGUSR1 back until a `StopRequest` is entered and notes them.

    They would end a process still importing PyTorch, or a finished one about to leave. A job on a
    cluster may get its warning at any moment.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))


class Stopped(Exception):
    """Some rank was asked to stop, and all of them leave their work here."""


class StopRequest:
    """Whether one of `SIGNALS` came since the block was entered; more of them change nothing.

    A second Ctrl-C alone is obeyed at once, since a person waits. So is the first one while
    nothing is trained that could be lost.

    Attributes:
        requested: whether a signal came.
        signal_name: of the first one, such as ``SIGTERM``.
        explain: makes a line of the signal's name; it is printed at once on stderr, unless it is
            empty. None until the training begins.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_name = ""
        self.explain: Callable[[str], str] | None = None
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None]
        self._previous = {}
        self._held: set[int] = set()

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        self._held = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held)
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.requested or self.explain is None):
            raise KeyboardInterrupt
        self.requested = True
        self.signal_name = signal.Signals(number).name
        what = self.explain(self.signal_name) if self.explain else _BEFORE_IT_BEGAN
        if what:
            # Not print: the signal may come while its buffer is in use.
            line = f"\n{self.signal_name}: {what}\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())
