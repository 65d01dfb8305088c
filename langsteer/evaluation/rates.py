"""Rates with honest intervals.

Example::

    rate = Rate(9, 10)
    str(rate)       # "90.0 % (9 of 10; 95 % interval 59.6-98.2 %)"
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Rate:
    """Successes of independent attempts."""

    successes: int
    attempts: int

    @property
    def value(self) -> float:
        """The share of successes; not a number without attempts."""
        return self.successes / self.attempts if self.attempts else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval at 95 % (Wilson 1927), sound for few attempts and for 0 and 1."""
        return _wilson(self.value, self.attempts) if self.attempts else (0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``results.json``."""
        return {
            "successes": self.successes,
            "attempts": self.attempts,
            "rate": self.value if self.attempts else None,
            "interval_95": list(self.interval),
        }

    def __str__(self) -> str:
        if not self.attempts:
            return "no attempts"
        low, high = (100 * bound for bound in self.interval)
        return (
            f"{100 * self.value:.1f} % ({self.successes} of {self.attempts}; "
            f"95 % interval {low:.1f}-{high:.1f} %)"
        )


def mean_interval(values: Sequence[float], top: float) -> tuple[float, float]:
    """95 % interval of the mean of independent values between 0 and ``top``.

    Wilson's interval with the effective number of attempts (Korn and Graubard 1998): as many as
    would spread the mean as much if each gave 0 or ``top``. So it is sound at the ends, too, where
    mean +/- 1.96 standard errors has no width. Values that are all equal count as attempts.
    """
    n, mean, variance = len(values), float(np.mean(values)) / top, float(np.var(values)) / top**2
    effective = n * mean * (1 - mean) / variance if variance else n
    low, high = _wilson(mean, effective)
    return top * low, top * high


def _wilson(p: float, n: float) -> tuple[float, float]:
    z2 = _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def rates_by_name(outcomes: Iterable[tuple[str, bool]]) -> dict[str, Rate]:
    """Name to the rate of its attempts, in order of name."""
    attempts: Counter[str] = Counter()
    successes: Counter[str] = Counter()
    for name, success in outcomes:
        attempts[name] += 1
        successes[name] += success
    return {name: Rate(successes[name], attempts[name]) for name in sorted(attempts)}
