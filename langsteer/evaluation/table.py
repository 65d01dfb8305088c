"""The numbers of a comparison of steerings: a row for each method, paired with the base.

Example::

    print(tables(attempts))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langsteer.evaluation.attempts import Attempt
from langsteer.evaluation.rates import Rate

BASE = "none"
RESAMPLES = 4000
_FEWEST_STARTS = 3  # resamples of two have three values: no interval


@dataclass(frozen=True)
class Gain:
    """A method's success less the base's, with its 95 % interval; of one or two starts none."""

    mean: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{100 * self.mean:+.0f} (too few starts)"
        low, high = (100 * bound for bound in self.interval)
        return f"{100 * self.mean:+.0f} ({low:+.0f} to {high:+.0f})"


@dataclass(frozen=True)
class Row:
    """One method's numbers.

    Attributes:
        method: its name.
        success: attempts with the instructed task done.
        others: attempts with another task done, too or instead.
        gain: over the base; None for the base itself.
        prediction_ms: median milliseconds of a prediction.
        denoiser_calls, gradient_calls: of a prediction, on average.
    """

    method: str
    success: Rate
    others: Rate
    gain: Gain | None
    prediction_ms: float
    denoiser_calls: float
    gradient_calls: float


def paired_gain(attempts: Sequence[Attempt], method: str) -> Gain:
    """Mean difference of success to the base over pairs, and its 95 % interval.

    Pairs of one start share scene and noise, so whole starts are drawn with replacement (paired
    cluster bootstrap, Efron & Tibshirani 1993, percentile interval, 4000 resamples of seed 0). With
    few starts it is too narrow; if all agree it has no width; with one there is none.
    """
    # Pairs share scene and noise, so their difference varies less than the rates themselves.
    base = {(one.start, one.task): one.success for one in attempts if one.method == BASE}
    differences: dict[int, list[int]] = {}
    for one in attempts:
        if one.method == method:
            gain = int(one.success) - int(base[one.start, one.task])
            differences.setdefault(one.start, []).append(gain)
    sums = np.array([sum(gains) for gains in differences.values()])
    counts = np.array([len(gains) for gains in differences.values()])
    mean = float(sums.sum() / counts.sum())
    if len(sums) < _FEWEST_STARTS:
        return Gain(mean, None)
    # Whole starts are drawn: attempts of one start are not independent.
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Gain(mean, (float(low), float(high)))


def rows(attempts: Sequence[Attempt]) -> list[Row]:
    """A row for each method, in the order of their attempts."""
    found = []
    for method in dict.fromkeys(one.method for one in attempts):
        own = [one for one in attempts if one.method == method]
        found.append(
            Row(
                method,
                Rate(sum(one.success for one in own), len(own)),
                Rate(sum(bool(one.others) for one in own), len(own)),
                None if method == BASE else paired_gain(attempts, method),
                float(np.median([one.prediction_ms for one in own])),
                float(np.mean([one.denoiser_calls for one in own])),
                float(np.mean([one.gradient_calls for one in own])),
            )
        )
    return found


_HEADINGS = (
    "method",
    "instructed task done",
    "gain over none, paired (95 %)",
    "another task done",
    "ms a prediction",
    "times none",
    "denoiser calls",
    "gradients",
)


def table_cells(attempts: Sequence[Attempt]) -> list[list[str]]:
    """The table's text, headings first."""
    found = rows(attempts)
    base_ms = next(row.prediction_ms for row in found if row.method == BASE)
    cells = [list(_HEADINGS)]
    for row in found:
        low, high = (100 * bound for bound in row.success.interval)
        cells.append(
            [
                row.method,
                f"{100 * row.success.value:.0f} % ({row.success.successes}/{row.success.attempts}; "
                f"{low:.0f}-{high:.0f})",
                "" if row.gain is None else str(row.gain),
                f"{100 * row.others.value:.0f} %",
                f"{row.prediction_ms:.0f}",
                f"{row.prediction_ms / base_ms:.2f}",
                f"{row.denoiser_calls:.0f}",
                f"{row.gradient_calls:.0f}",
            ]
        )
    return cells


def task_cells(attempts: Sequence[Attempt]) -> list[list[str]]:
    """Success of each method at each task, headings first."""
    methods = list(dict.fromkeys(one.method for one in attempts))
    cells = [["task", *methods]]
    for task in dict.fromkeys(one.task for one in attempts):
        counts = []
        for method in methods:
            own = [one.success for one in attempts if (one.method, one.task) == (method, task)]
            counts.append(f"{sum(own)}/{len(own)}")
        cells.append([task, *counts])
    return cells


def tables(attempts: Sequence[Attempt]) -> str:
    """Both tables in Markdown."""
    return "\n".join(_markdown(cells) for cells in (table_cells(attempts), task_cells(attempts)))


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body]) + "\n"
