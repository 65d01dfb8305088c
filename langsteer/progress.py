"""A progress bar on a terminal, and a line now and then in a log file.

Example::

    for frame in track(frames, "converting", unit="frame"):
        ...
"""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, NoReturn, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LOG_EVERY_SECONDS = 30.0


if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]  # generic in its stubs only
else:
    _Tqdm = tqdm


class ProgressBar(_Tqdm):
    """Shows the time left from the first step on, however long the next one takes."""

    def update(self, n: float | None = 1) -> bool | None:
        """Count ``n`` more."""
        first = not self.disable and self.n == self.initial and bool(n)
        shown = super().update(n)
        if first and not shown:
            self.refresh()
        return shown


def progress_bar(
    total: int | None, description: str, unit: str, initial: int = 0, disable: bool = False
) -> ProgressBar:
    """A bar with rate and time left on stderr; without a terminal, a line every 30 s.

    The first step is shown at once, with the time left that it promises.

    Args:
        total: amount of work in ``unit``, or None if unknown.
        description: of the work, e.g. ``"converting"``.
        unit: singular noun of the work counted, e.g. ``"frame"``.
        initial: work done by an earlier run of the same task; it does not count in the rate.
        disable: no output at all, for ranks other than 0.
    """
    terminal = sys.stderr.isatty()
    return ProgressBar(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=disable,
        dynamic_ncols=terminal,
        mininterval=0.1 if terminal else LOG_EVERY_SECONDS,
        # A log file needs lines, not one line drawn over and over.
        bar_format=None
        if terminal
        else "{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]\n",
    )


def say_doing(bar: ProgressBar, doing: str) -> None:
    """Change what a bar on a terminal says is being done; a log file gets no line for it."""
    bar.set_description(doing, refresh=sys.stderr.isatty())


def track(items: Iterable[T], description: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while a `progress_bar` counts them."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()
