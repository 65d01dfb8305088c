"""One HTML page of rates, tables, videos and paths; it needs no network.

Example::

    film = Clip("", video, hand_path)
    panels = [Panel("#0 “open the drawer”", [("success", True)], [film], path_traces(...))]
    write_page(path, "LangSteer: open_drawer", Section("Episodes", "Open one."), panels, settings,
               tiles=[tile("90 %", "success")])
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.evaluation.rates import Rate
from langsteer.evaluation.video import thumbnail_base64
from langsteer.files import replacing
from langsteer.html_page import filled

MAX_PANELS = 100
"""More would make a page that does not open on a phone."""
_MAX_CLOUD = 2048
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Clip:
    """A video of an attempt.

    Attributes:
        caption: of the video; empty where the panel has but one.
        path: an MP4 file; a missing one is left out.
        track: (K, 3) places of the hand in metres, 30 for each second of the video; a dot in the
            figure follows them as the video plays. None for no dot.
        colour: of the dot and the caption's mark; empty for the page's own.
    """

    caption: str
    path: Path
    track: NDArray[np.floating] | None = None
    colour: str = ""


@dataclass(frozen=True)
class Panel:
    """A part of the page, to be opened by a click.

    Attributes:
        title: of the panel.
        outcomes: each outcome in words, and whether it is good.
        films: play together, and the last frame of the first one stands beside the title.
        traces: Plotly's, of one 3-D figure in metres; none for no figure.
    """

    title: str
    outcomes: Sequence[tuple[str, bool]]
    films: Sequence[Clip] = ()
    traces: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Section:
    """What stands above the panels."""

    title: str
    note: str

    def of(self, count: int) -> "Section":
        """The same, with a word on it where a page holds only some of ``count`` panels."""
        if count <= MAX_PANELS:
            return self
        return replace(self, note=f"{self.note} The first {MAX_PANELS} of {count:,} are shown.")


def write_page(
    path: Path,
    title: str,
    section: Section,
    panels: Sequence[Panel],
    settings: Mapping[str, Any],
    tiles: Sequence[Mapping[str, str]],
    bars: Sequence[Mapping[str, Any]] = (),
    tables: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, str] = NOTHING,
) -> None:
    """Write a page of `Panel`, `tile`, `rate_bars` and `table` parts, with 100 panels at most.

    ``facts`` stand below the title, by their names.
    """
    data = {
        "title": title,
        "facts": list(facts.items()),
        "tiles": tiles,
        "bars": bars,
        "tables": tables,
        "section": asdict(section),
        "panels": [_plain(panel) for panel in panels[:MAX_PANELS]],
        "settings": settings,
    }
    template = resources.files("langsteer.evaluation").joinpath("page.html").read_text("utf-8")
    with replacing(path) as temporary:
        temporary.write_text(filled(template, title, data), encoding="utf-8")


def tile(value: str, label: str) -> dict[str, str]:
    """A number with what it is."""
    return {"value": value, "label": label}


def rate_bars(
    title: str, rates: Mapping[str, Rate], notes: Mapping[str, str] = NOTHING
) -> dict[str, Any]:
    """A bar for each rate with its 95 % interval, and a note on some of them."""
    rows = [
        {
            "label": label,
            "value": rate.value,
            "interval": rate.interval,
            "text": f"{rate.successes}/{rate.attempts}",
            "note": notes.get(label, ""),
        }
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


def _plain(panel: Panel) -> dict[str, Any]:
    made = [film for film in panel.films if film.path.exists()]
    return {
        "title": panel.title,
        "outcomes": panel.outcomes,
        "thumbnail": thumbnail_base64(made[0].path) if made else None,
        "films": [
            {
                "caption": film.caption,
                "video": base64.b64encode(film.path.read_bytes()).decode("ascii"),
                "track": None if film.track is None else film.track.round(4).tolist(),
                "colour": film.colour,
            }
            for film in made
        ],
        "traces": panel.traces,
    }
