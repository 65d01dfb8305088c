"""What a run leaves in its folder, besides the report.

::

    outputs/experiments/<run>/
    ├── settings.json       what the results depend on
    ├── results.json        rates, per task and in all, with intervals; provenance
    ├── episodes.csv        one line for each episode
    ├── report.html
    └── episodes/           NNNN.json, NNNN.npz (trajectory), NNNN.mp4
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langsteer.evaluation.rollout import TaskRun
from langsteer.evaluation.statistics import Rate
from langsteer.files import replacing

_COLUMNS = (
    "episode", "task", "instruction", "success", "steps", "tasks_seen", "predictions",
    "prediction_ms",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        folder: the run's.
        settings: what it was made with.
        episodes: one plain result each, see `episode_result`.
    """

    folder: Path
    settings: Mapping[str, Any]
    episodes: Sequence[Mapping[str, Any]]

    @property
    def rate(self) -> Rate:
        """Successful episodes of all."""
        return Rate(sum(episode["success"] for episode in self.episodes), len(self.episodes))

    def task_rates(self) -> dict[str, Rate]:
        """Task to its rate, in order of name."""
        return {
            task: Rate(sum(e["success"] for e in mine), len(mine))
            for task in sorted({episode["task"] for episode in self.episodes})
            for mine in [[e for e in self.episodes if e["task"] == task]]
        }

    @property
    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction."""
        return float(np.median([episode["prediction_ms"] for episode in self.episodes]))

    def provenance(self) -> dict[str, Any]:
        """Which checkpoint, scene, renderer, seed, precision and commit made it."""
        return {
            "checkpoint": self.settings["checkpoint"],
            "environment": self.episodes[0]["environment"] if self.episodes else None,
            "seed": self.settings["seed"],
            "device": self.settings["device"],
            "precision": self.settings["precision"],
            "commit": self.settings["commit"],
        }

    def lines(self) -> list[str]:
        """What a terminal shows after the rate."""
        made_by = self.provenance()
        env = made_by["environment"] or {}
        return [
            f"median time per prediction: {self.prediction_ms:.0f} ms",
            f"checkpoint {made_by['checkpoint']['path']}, scene {env.get('scene')}, renderer "
            f"{env.get('renderer')}, seed {made_by['seed']}, commit {made_by['commit']}",
            f"results: {self.folder / 'results.json'}",
            f"report:  {self.folder / 'report.html'}",
        ]


def episode_result(
    number: int, instruction: str, run: TaskRun, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """An episode in plain values."""
    return {
        "episode": number,
        "task": run.task,
        "instruction": instruction,
        "success": run.success,
        "steps": run.steps,
        "tasks_seen": sorted(run.tasks_seen),
        "predictions": len(run.predicted_at),
        "prediction_ms": run.prediction_ms,
        "environment": dict(environment),
    }


def save_trajectory(path: Path, run: TaskRun) -> None:
    """Write ``robot_obs`` (T + 1, 15), ``scene_obs`` (T + 1, 24), ``actions`` (T, 7),
    ``predicted_at`` (steps) and ``point_cloud`` (P, 3), the first one seen.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            robot_obs=np.array(run.robot_obs),
            scene_obs=np.array(run.scene_obs),
            actions=np.array(run.actions),
            predicted_at=np.array(run.predicted_at),
            point_cloud=np.array(run.cloud),
        )


def write_results(summary: Summary) -> None:
    """Write ``results.json`` and ``episodes.csv``."""
    content = {
        "success": summary.rate.to_dict(),
        "tasks": {task: rate.to_dict() for task, rate in summary.task_rates().items()},
        "median_prediction_ms": summary.prediction_ms,
        "provenance": summary.provenance(),
        "settings": summary.settings,
    }
    with replacing(summary.folder / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    write_csv(summary.folder / "episodes.csv", _COLUMNS, summary.episodes)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each row, lists joined by spaces."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row[column]) for column in columns])


def _cell(value: Any) -> Any:  # noqa: ANN401 - any plain value
    return " ".join(value) if isinstance(value, list) else value
