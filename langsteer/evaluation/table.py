"""The numbers of a comparison of steerings: a row for each method, paired with its control.

Example::

    print(tables(attempts))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langsteer.evaluation.attempts import Attempt, blank_of
from langsteer.evaluation.rates import Rate

BASE = "none"
RESAMPLES = 4000
_FEWEST_STARTS = 3  # resamples of two have three values: no interval
SHARE = (
    "The policy's own share is what a method does with the trained network beyond what it does "
    "with a blank one, its last layer zeroed, from the same starts with the same noise: guidance "
    "that drives the arm by itself has a share of nothing."
)


@dataclass(frozen=True)
class Gain:
    """A method's success less another's, with its 95 % interval; of one or two starts none."""

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
        share: over its control, the policy's own; None without one.
        success: attempts with the instructed task done.
        others: attempts with another task done, too or instead.
        gain: over the base; None for the base itself.
        prediction_ms: median milliseconds of a prediction.
        denoiser_calls, gradient_calls: of a prediction, on average.
    """

    method: str
    share: Gain | None
    success: Rate
    others: Rate
    gain: Gain | None
    prediction_ms: float
    denoiser_calls: float
    gradient_calls: float


def paired_gain(attempts: Sequence[Attempt], method: str, base: str = BASE) -> Gain:
    """Mean difference of success to a base over pairs, and its 95 % interval.

    Pairs of one start share scene and noise, so whole starts are drawn with replacement (paired
    cluster bootstrap, Efron & Tibshirani 1993, percentile interval, 4000 resamples of seed 0). With
    few starts it is too narrow; if all agree it has no width; with one there is none.
    """
    # Pairs share scene and noise, so their difference varies less than the rates themselves.
    reached = {(one.start, one.task): one.success for one in attempts if one.method == base}
    differences: dict[int, list[int]] = {}
    for one in attempts:
        if one.method == method:
            gain = int(one.success) - int(reached[one.start, one.task])
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
    methods = list(dict.fromkeys(one.method for one in attempts))
    for method in methods:
        control = blank_of(method)
        own = [one for one in attempts if one.method == method]
        found.append(
            Row(
                method,
                paired_gain(attempts, method, control) if control in methods else None,
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
    "the policy's own share, paired (95 %)",
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
                "" if row.share is None else str(row.share),
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
    """Both tables in Markdown, and what the main column means."""
    methods, by_task = _markdown(table_cells(attempts)), _markdown(task_cells(attempts))
    return f"{methods}\n{SHARE}\n\n{by_task}"


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body]) + "\n"
