"""The results of CALVIN's long-horizon benchmark, and their page.

Example::

    summary = BenchmarkSummary(results)    # one for each chain
    print("\n".join(summary.lines()))
    summary.write(folder, identity)        # results.json, chains.csv, report.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langsteer.calvin.benchmark import CHAIN_LENGTH
from langsteer.evaluation.page import Clip, Panel, Section, rate_bars, tile, write_page
from langsteer.evaluation.rates import Rate, mean_interval, rates_by_name
from langsteer.evaluation.run import facts, write_csv
from langsteer.files import write_json

CHAINS = "chains"
"""The folder of the chains' own results and videos, in that of the run."""
_SECTION = Section("Tasks of the chains that were filmed", "Open one for its video.")
_COLUMNS = ("chain", "completed", "tasks", "steps")


@dataclass(frozen=True)
class BenchmarkSummary:
    """The benchmark's numbers, from one plain result for each chain (see `play_chain`)."""

    results: Sequence[Mapping[str, Any]]

    @property
    def average_length(self) -> float:
        """Mean number of tasks done in a row, 0 to 5."""
        return float(np.mean(self._completed()))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the average length, see `mean_interval`."""
        return mean_interval(self._completed(), CHAIN_LENGTH)

    def in_a_row(self) -> dict[str, Rate]:
        """Share of chains with at least 1 .. 5 tasks done."""
        completed = self._completed()
        return {
            str(count): Rate(sum(done >= count for done in completed), len(completed))
            for count in range(1, CHAIN_LENGTH + 1)
        }

    def _completed(self) -> list[int]:
        return [result["completed"] for result in self.results]

    def _subtasks(self) -> list[Mapping[str, Any]]:
        return [subtask for result in self.results for subtask in result["subtasks"]]

    def tasks(self) -> dict[str, Rate]:
        """Task to its rate, over all attempts up to and including a chain's first failure."""
        return rates_by_name((one["task"], one["success"]) for one in self._subtasks())

    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction."""
        return float(np.median([one["prediction_ms"] for one in self._subtasks()]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``results.json``."""
        return {
            "average_length": self.average_length,
            "average_length_interval_95": list(self.interval),
            "chains": len(self.results),
            "in_a_row": {key: rate.to_dict() for key, rate in self.in_a_row().items()},
            "tasks": {task: rate.to_dict() for task, rate in self.tasks().items()},
            "median_prediction_ms": self.prediction_ms(),
        }

    def lines(self) -> list[str]:
        """What a terminal shows."""
        low, high = self.interval
        lines = [
            f"average length: {self.average_length:.3f} of {CHAIN_LENGTH} "
            f"(95 % interval {low:.2f}-{high:.2f})"
        ]
        lines += [f"{key} in a row: {rate}" for key, rate in self.in_a_row().items()]
        return lines + [f"  {task}: {rate}" for task, rate in self.tasks().items()]

    def write(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write ``results.json``, ``chains.csv`` and ``report.html`` of a run."""
        environment = self.results[0]["environment"]
        low, high = self.interval
        filmed = self._filmed(folder / CHAINS, identity["videos"])
        content = {**self.to_dict(), "environment": environment, "settings": identity}
        write_json(folder / "results.json", content)
        write_csv(folder / "chains.csv", _COLUMNS, self.results)
        write_page(
            folder / "report.html",
            title="LangSteer: CALVIN's long-horizon benchmark",
            section=_SECTION.of(len(filmed)),
            panels=filmed,
            settings={**identity, "environment": environment},
            facts=facts(identity, environment),
            tiles=[
                tile(
                    f"{self.average_length:.2f}",
                    f"average length, of {CHAIN_LENGTH}; 95 % interval {low:.2f}-{high:.2f}",
                ),
                tile(str(len(self.results)), "chains"),
                tile(f"{self.prediction_ms():.0f} ms", "median time per prediction"),
            ],
            bars=[
                rate_bars("Tasks in a row", self.in_a_row()),
                rate_bars("Success by task", self.tasks()),
            ],
        )

    def _filmed(self, folder: Path, chains_filmed: int) -> list[Panel]:
        """The subtasks of filmed chains, for the report."""
        return [
            Panel(
                f"chain {result['chain']}, task {place}: {_caption(subtask)}",
                [("success" if subtask["success"] else "failed", subtask["success"])],
                [Clip("", folder / f"{result['chain']:04d}_{place}.mp4")],
            )
            for result in self.results[:chains_filmed]
            for place, subtask in enumerate(result["subtasks"], start=1)
        ]


def _caption(subtask: Mapping[str, Any]) -> str:
    """What the policy was given; subtasks of older runs say only their sentence."""
    told: str = subtask.get("caption", f"\u201c{subtask['instruction']}\u201d")
    return told
