"""The results of an experiment, and its page.

Example::

    summary = Summary(folder, identity, episodes)
    print(summary.rate)
    summary.write()    # results.json, episodes.csv, report.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.npy import UnreadableFileError, read_npz
from langsteer.errors import UserError
from langsteer.evaluation.page import (
    MAX_PANELS,
    Clip,
    Panel,
    Section,
    cloud_trace,
    line_trace,
    rate_bars,
    tile,
    write_page,
    xyz,
)
from langsteer.evaluation.rates import Rate, rates_by_name
from langsteer.evaluation.run import facts, write_csv
from langsteer.files import write_json
from langsteer.resumable import Result

EPISODES = "episodes"
"""The folder of a run's episodes: a result, a trajectory and a film of each."""
_COLUMNS = (
    "episode", "task", "instruction", "success", "steps", "tasks_seen", "predictions",
    "prediction_ms",
)  # fmt: skip
_GOOD, _BAD, _PREDICTED = "#2da44e", "#e5484d", "#f5a524"
_SECTION = Section(
    "Episodes",
    "Open one for its video and the gripper's path over the first point cloud that the policy saw; "
    "dots on the path are where predictions were made.",
)


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        folder: the run's.
        settings: what it was made with, plain; see `PlaySettings.identity`.
        episodes: one plain result each.
        control: the untrained network's results at the same starts, if it played.
    """

    folder: Path
    settings: Mapping[str, Any]
    episodes: Sequence[Result]
    control: Sequence[Result] = ()

    @property
    def rate(self) -> Rate:
        """Successful episodes of all."""
        return _rate(self.episodes)

    def task_rates(self) -> dict[str, Rate]:
        """Task to its rate, in order of name."""
        return _rates(self.episodes)

    def bars(self) -> dict[str, Rate]:
        """The tasks' rates, each before that of the untrained network."""
        control = _rates(self.control)
        found: dict[str, Rate] = {}
        for task, rate in self.task_rates().items():
            found[task] = rate
            if task in control:
                found[f"{task}, untrained network"] = control[task]
        return found

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
        control = [f"untrained network at the same starts: {_rate(self.control)}"]
        return [
            *(control if self.control else []),
            f"median time per prediction: {self.prediction_ms:.0f} ms",
            f"checkpoint {made_by['checkpoint']['path']}, scene {env.get('scene')}, renderer "
            f"{env.get('renderer')}, seed {made_by['seed']}, "
            f"commit {made_by['commit'] or 'unknown (no checkout)'}",
            f"results: {self.folder / 'results.json'}",
            f"report:  {self.folder / 'report.html'}",
        ]

    def write(self) -> None:
        """Write ``results.json``, ``episodes.csv`` and ``report.html``."""
        content = {
            "success": self.rate.to_dict(),
            "tasks": {task: rate.to_dict() for task, rate in self.task_rates().items()},
            "control": _rate(self.control).to_dict() if self.control else None,
            "median_prediction_ms": self.prediction_ms,
            "provenance": self.provenance(),
            "settings": self.settings,
        }
        write_json(self.folder / "results.json", content)
        write_csv(self.folder / "episodes.csv", _COLUMNS, self.episodes)
        _write_report(self)


def _rate(episodes: Sequence[Result]) -> Rate:
    return Rate(sum(episode["success"] for episode in episodes), len(episodes))


def _rates(episodes: Sequence[Result]) -> dict[str, Rate]:
    return rates_by_name((episode["task"], episode["success"]) for episode in episodes)


def _write_report(summary: Summary) -> None:
    rate, tasks = summary.rate, summary.task_rates()
    low, high = (f"{100 * bound:.0f}" for bound in rate.interval)
    write_page(
        summary.folder / "report.html",
        title=f"LangSteer: {next(iter(tasks)) if len(tasks) == 1 else f'{len(tasks)} tasks'}",
        section=_SECTION.of(len(summary.episodes)),
        panels=[_panel(summary.folder / EPISODES, one) for one in summary.episodes[:MAX_PANELS]],
        settings={"provenance": summary.provenance(), "settings": summary.settings},
        tiles=[
            tile(f"{100 * rate.value:.0f} %", f"success, 95 % interval {low}-{high} %"),
            tile(f"{rate.successes} of {rate.attempts}", "episodes"),
            tile(f"{summary.prediction_ms:.0f} ms", "median time per prediction"),
        ],
        bars=[rate_bars("Success by task, with 95 % intervals", summary.bars())],
        facts=facts(summary.settings, summary.provenance()["environment"]),
    )


def _panel(folder: Path, episode: Result) -> Panel:
    """An episode with its video and its path, as far as they were kept."""
    name, success = f"{episode['episode']:04d}", episode["success"]
    hand, traces = _traces(folder / f"{name}.npz", success)
    return Panel(
        f"#{episode['episode']} {_caption(episode)}",
        [(f"{'success' if success else 'failed'} ({episode['steps']} steps)", success)],
        [Clip("", folder / f"{name}.mp4", hand)],
        traces,
    )


def _caption(episode: Result) -> str:
    """The task and what the policy was given; episodes of older runs lack the latter."""
    given = episode.get("caption", f"\u201c{episode['instruction']}\u201d")
    return given if given.startswith(episode["task"]) else f"{episode['task']}: {given}"


def _traces(path: Path, success: bool) -> tuple[NDArray[np.floating] | None, list[dict[str, Any]]]:
    """The tcp's path (T + 1, 3), and traces of it, the first cloud and the places of predictions.

    Nothing where no trajectory was kept.
    """
    if not path.exists():
        return None, []
    try:
        names = ("point_cloud", "robot_obs", "predicted_at")
        cloud, states, predicted_at = read_npz(path, names).values()
        hand = states[:, :3]
        places = hand[predicted_at]
    except (UnreadableFileError, IndexError) as error:
        raise UserError(
            f"{path}: no trajectory of an episode ({error}); remove it, and the report goes without"
        ) from error
    dots = {"type": "scatter3d", "mode": "markers", "marker": {"size": 2.5, "color": _PREDICTED}}
    return hand, [
        cloud_trace(cloud),
        line_trace(hand, _GOOD if success else _BAD, 5),
        {**xyz(places), **dots, "showlegend": False},
    ]
