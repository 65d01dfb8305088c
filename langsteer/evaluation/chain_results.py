"""What the long-horizon benchmark found: its numbers, and what is written of them.

Example::

    summary = BenchmarkSummary(results)         # of `long_horizon.play_chain`, one for each chain
    write_results(folder, settings, summary)
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langsteer.calvin.benchmark import CHAIN_LENGTH
from langsteer.evaluation.jobs import Settings
from langsteer.evaluation.page import Section, View, rate_bars, tile, write_page
from langsteer.evaluation.results import write_csv
from langsteer.evaluation.statistics import Rate
from langsteer.files import replacing

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
        return float(np.mean([result["completed"] for result in self.results]))

    def in_a_row(self) -> dict[str, Rate]:
        """Share of chains with at least 1 .. 5 tasks done."""
        completed = [result["completed"] for result in self.results]
        return {
            str(count): Rate(sum(done >= count for done in completed), len(completed))
            for count in range(1, CHAIN_LENGTH + 1)
        }

    def tasks(self) -> dict[str, Rate]:
        """Task to its rate, over all attempts up to and including a chain's first failure."""
        attempts: Counter[str] = Counter()
        successes: Counter[str] = Counter()
        for result in self.results:
            for subtask in result["subtasks"]:
                attempts[subtask["task"]] += 1
                successes[subtask["task"]] += subtask["success"]
        return {task: Rate(successes[task], attempts[task]) for task in sorted(attempts)}

    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction."""
        times = [sub["prediction_ms"] for result in self.results for sub in result["subtasks"]]
        return float(np.median(times))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``results.json``."""
        return {
            "average_length": self.average_length,
            "chains": len(self.results),
            "in_a_row": {key: rate.to_dict() for key, rate in self.in_a_row().items()},
            "tasks": {task: rate.to_dict() for task, rate in self.tasks().items()},
            "median_prediction_ms": self.prediction_ms(),
        }

    def lines(self) -> list[str]:
        """What a terminal shows."""
        lines = [f"average length: {self.average_length:.3f} of {CHAIN_LENGTH}"]
        lines += [f"{key} in a row: {rate}" for key, rate in self.in_a_row().items()]
        return lines + [f"  {task}: {rate}" for task, rate in self.tasks().items()]


def write_results(folder: Path, settings: Settings, summary: BenchmarkSummary) -> None:
    """Write ``results.json``, ``chains.csv`` and ``report.html``."""
    content = {
        **summary.to_dict(),
        "environment": summary.results[0]["environment"],
        "settings": dict(settings),
    }
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    write_csv(folder / "chains.csv", _COLUMNS, summary.results)
    write_page(
        folder / "report.html",
        title="LangSteer: CALVIN's long-horizon benchmark",
        section=_SECTION,
        views=_filmed(folder / CHAINS, settings, summary),
        settings=content["settings"] | {"environment": content["environment"]},
        tiles=[
            tile(f"{summary.average_length:.2f}", "average length, of 5"),
            tile(str(len(summary.results)), "chains"),
            tile(f"{summary.prediction_ms():.0f} ms", "median time per prediction"),
        ],
        bars=[
            rate_bars("Tasks in a row", summary.in_a_row()),
            rate_bars("Success by task", summary.tasks()),
        ],
    )


def _filmed(folder: Path, settings: Settings, summary: BenchmarkSummary) -> list[View]:
    """The subtasks of the chains that were filmed, for the report."""
    return [
        View(
            f"chain {result['chain']}, task {place}: \u201c{subtask['instruction']}\u201d",
            [("success" if subtask["success"] else "failed", subtask["success"])],
            {"": folder / f"{result['chain']:04d}_{place}.mp4"},
        )
        for result in summary.results[: settings["videos"]]
        for place, subtask in enumerate(result["subtasks"], start=1)
    ]
