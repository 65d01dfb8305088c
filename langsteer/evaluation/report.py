"""A run's report: one HTML page with rates, videos and paths, that needs no network.

Example::

    write_report(summary)       # outputs/experiments/<run>/report.html
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from langsteer.evaluation.results import Summary
from langsteer.evaluation.statistics import Rate
from langsteer.evaluation.video import video_base64
from langsteer.files import replacing

_MAX_CLOUD = 2048
# Those with a video, and some more: a page of a thousand would not open on a phone.
_MAX_EPISODES = 100


def write_report(summary: Summary) -> None:
    """Write ``report.html`` of an experiment."""
    rate = summary.rate
    low, high = (f"{100 * bound:.0f}" for bound in rate.interval)
    tiles = [
        tile(f"{100 * rate.value:.0f} %", f"success, 95 % interval {low}-{high} %"),
        tile(f"{rate.successes} of {rate.attempts}", "episodes"),
        tile(f"{summary.prediction_ms:.0f} ms", "median time per prediction"),
    ]
    tasks = summary.task_rates()
    first = summary.episodes[0]
    write_page(
        summary.folder / "report.html",
        title=f"LangSteer: {first['task'] if len(tasks) == 1 else f'{len(tasks)} tasks'}",
        tiles=tiles,
        bars=[rate_bars("Success by task", tasks)],
        episodes=[
            episode_view(summary.folder / "episodes", episode)
            for episode in summary.episodes[:_MAX_EPISODES]
        ],
        settings={"provenance": summary.provenance(), "settings": summary.settings},
    )


def write_page(
    path: Path,
    title: str,
    tiles: Sequence[Mapping[str, str]],
    bars: Sequence[Mapping[str, Any]],
    episodes: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write a page of `tile`, `rate_bars` and `episode_view` parts."""
    data = {"title": title, "tiles": tiles, "bars": bars, "episodes": episodes}
    # "</" would end the script element that the data lies in.
    text = json.dumps({**data, "settings": settings}).replace("</", "<\\/")
    template = resources.files("langsteer.evaluation").joinpath("report.html").read_text("utf-8")
    before, after = template.replace("{{title}}", html.escape(title)).split("{{plotly}}")
    with replacing(path) as temporary:
        page = before + get_plotlyjs() + after.replace("{{data}}", text)
        temporary.write_text(page, encoding="utf-8")


def tile(value: str, label: str) -> dict[str, str]:
    """A number with what it is."""
    return {"value": value, "label": label}


def rate_bars(title: str, rates: Mapping[str, Rate]) -> dict[str, Any]:
    """A bar for each rate."""
    rows = [
        {"label": label, "value": rate.value, "text": f"{rate.successes}/{rate.attempts}"}
        for label, rate in rates.items()
        if rate.attempts
    ]
    return {"title": title, "rows": rows}


def episode_view(folder: Path, episode: Mapping[str, Any]) -> dict[str, Any]:
    """An episode with its video and its path, as far as they were kept."""
    name = f"{episode['episode']:04d}"
    view = {
        "title": f"#{episode['episode']} {episode['task']}: \u201c{episode['instruction']}\u201d",
        "success": episode["success"],
        "outcome": f"{'success' if episode['success'] else 'failed'} ({episode['steps']} steps)",
        "video": video_base64(folder / f"{name}.mp4"),
    }
    return {**view, **_path_view(folder / f"{name}.npz")}


def _path_view(path: Path) -> dict[str, Any]:
    """The tcp's path, the first cloud and the steps of predictions, for the 3-D plot."""
    if not path.exists():
        return {"cloud": None}
    with np.load(path, allow_pickle=False) as trajectory:
        cloud = trajectory["point_cloud"][:, :3]
        return {
            "cloud": _floats(cloud[:: max(1, len(cloud) // _MAX_CLOUD)]),
            "path": _floats(trajectory["robot_obs"][:, :3]),
            "predicted_at": trajectory["predicted_at"].tolist(),
        }


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")
