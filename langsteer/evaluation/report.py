"""An experiment's report: rates, videos, and the gripper's paths.

Example::

    write_report(summary)       # outputs/experiments/<run>/report.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from langsteer.evaluation.page import (
    MAX_VIEWS,
    Section,
    View,
    cloud_trace,
    line_trace,
    rate_bars,
    tile,
    write_page,
    xyz,
)
from langsteer.evaluation.results import Summary

_GOOD, _BAD, _PREDICTED = "#2da44e", "#e5484d", "#f5a524"
_SECTION = Section(
    "Episodes",
    "Open one for its video and the gripper's path over the first point cloud that the policy saw; "
    "dots on the path are where predictions were made.",
)


def write_report(summary: Summary) -> None:
    """Write ``report.html`` of an experiment."""
    rate = summary.rate
    low, high = (f"{100 * bound:.0f}" for bound in rate.interval)
    tasks = summary.task_rates()
    first = summary.episodes[0]
    folder = summary.folder / "episodes"
    write_page(
        summary.folder / "report.html",
        title=f"LangSteer: {first['task'] if len(tasks) == 1 else f'{len(tasks)} tasks'}",
        section=_SECTION,
        views=[_view(folder, episode) for episode in summary.episodes[:MAX_VIEWS]],
        settings={"provenance": summary.provenance(), "settings": summary.settings},
        tiles=[
            tile(f"{100 * rate.value:.0f} %", f"success, 95 % interval {low}-{high} %"),
            tile(f"{rate.successes} of {rate.attempts}", "episodes"),
            tile(f"{summary.prediction_ms:.0f} ms", "median time per prediction"),
        ],
        bars=[rate_bars("Success by task", tasks)],
    )


def _view(folder: Path, episode: Mapping[str, Any]) -> View:
    """An episode with its video and its path, as far as they were kept."""
    name, success = f"{episode['episode']:04d}", episode["success"]
    return View(
        f"#{episode['episode']} {episode['task']}: \u201c{episode['instruction']}\u201d",
        [(f"{'success' if success else 'failed'} ({episode['steps']} steps)", success)],
        {"": folder / f"{name}.mp4"},
        _traces(folder / f"{name}.npz", success),
    )


def _traces(path: Path, success: bool) -> list[dict[str, Any]]:
    """The first cloud, the tcp's path and the places of predictions."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as trajectory:
        cloud, hand = trajectory["point_cloud"], trajectory["robot_obs"][:, :3]
        places = hand[trajectory["predicted_at"]]
    dots = {"type": "scatter3d", "mode": "markers", "marker": {"size": 4, "color": _PREDICTED}}
    return [
        cloud_trace(cloud),
        line_trace(hand, _GOOD if success else _BAD, 5),
        {**xyz(places), **dots, "showlegend": False},
    ]
