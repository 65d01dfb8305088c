"""One HTML page of rates, tables, videos and paths; it needs no network.

Example::

    views = [View("#0 “open the drawer”", [("success", True)], {"": video}, path_traces(...))]
    write_page(path, "LangSteer: open_drawer", Section("Episodes", "Open one."), views, settings,
               tiles=[tile("90 %", "success")])
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from langsteer.evaluation.rates import Rate
from langsteer.evaluation.video import video_base64
from langsteer.files import replacing

MAX_VIEWS = 100
"""More would make a page that does not open on a phone."""
_MAX_CLOUD = 2048


@dataclass(frozen=True)
class View:
    """A part of the page, to be opened by a click.

    Attributes:
        title: of the view.
        outcomes: each outcome in words, and whether it is good.
        videos: caption to an MP4 file; missing files are left out.
        traces: Plotly's, of one 3-D figure in metres; none for no figure.
    """

    title: str
    outcomes: Sequence[tuple[str, bool]]
    videos: Mapping[str, Path] = field(default_factory=dict)
    traces: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Section:
    """What stands above the views."""

    title: str
    note: str


def write_page(
    path: Path,
    title: str,
    section: Section,
    views: Sequence[View],
    settings: Mapping[str, Any],
    tiles: Sequence[Mapping[str, str]],
    bars: Sequence[Mapping[str, Any]] = (),
    tables: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a page of `View`, `tile`, `rate_bars` and `table` parts, with 100 views at most."""
    data = {
        "title": title,
        "tiles": tiles,
        "bars": bars,
        "tables": tables,
        "section": asdict(section),
        "views": [_plain(view) for view in views[:MAX_VIEWS]],
        "settings": settings,
    }
    # "</" would end the script element around the data.
    text = json.dumps(data).replace("</", "<\\/")
    template = resources.files("langsteer.evaluation").joinpath("page.html").read_text("utf-8")
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


def table(title: str, cells: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A table, its headings in the first row."""
    return {"title": title, "head": cells[0], "rows": cells[1:]}


def cloud_trace(points: NDArray[np.floating]) -> dict[str, Any]:
    """Plotly's trace of a cloud (P, 3 or more), coloured by height; 2048 points or fewer."""
    columns = xyz(points[:: -(-len(points) // _MAX_CLOUD), :3])
    marker = {"size": 2, "color": columns["z"], "colorscale": "Viridis", "opacity": 0.8}
    shown = {"type": "scatter3d", "mode": "markers", "hoverinfo": "skip", "marker": marker}
    return {**columns, **shown, "showlegend": False}


def line_trace(
    path: NDArray[np.floating], colour: str, width: int, name: str = ""
) -> dict[str, Any]:
    """Plotly's trace of a path (K, 3), broken at rows of NaN; with a name it is in the legend."""
    line = {"color": colour, "width": width}
    shown = {"type": "scatter3d", "mode": "lines", "line": line, "name": name}
    return {**xyz(path), **shown, "showlegend": bool(name)}


def xyz(points: NDArray[np.floating]) -> dict[str, list[float | None]]:
    """Columns of points (K, 3) for Plotly, to 0.1 mm; NaN becomes None, a gap."""
    columns = np.asarray(points, dtype=np.float64).round(4).T
    return {
        axis: [None if np.isnan(value) else float(value) for value in column]
        for axis, column in zip("xyz", columns, strict=True)
    }


def _plain(view: View) -> dict[str, Any]:
    encoded = {caption: video_base64(path) for caption, path in view.videos.items()}
    return {
        "title": view.title,
        "outcomes": view.outcomes,
        "videos": [[caption, video] for caption, video in encoded.items() if video is not None],
        "traces": view.traces,
    }
