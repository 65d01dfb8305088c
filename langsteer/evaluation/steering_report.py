"""The page of a comparison of steerings: rates, tables, and where the hand went with each method.

Example::

    write_report(folder, attempts, clouds, settings)        # folder/report.html
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.evaluation.attempts import Attempt, video_path
from langsteer.evaluation.page import (
    MAX_VIEWS,
    Section,
    View,
    cloud_trace,
    line_trace,
    rate_bars,
    table,
    tile,
    write_page,
)
from langsteer.evaluation.steering_table import rows, table_cells, task_cells

_COLOURS = ("#3b82f6", "#e5484d", "#2da44e", "#9467bd", "#f5a524", "#8c564b", "#e377c2", "#17becf")
_SECTION = Section(
    "One start, one sentence, every method",
    "All methods begin alike and draw the same noise. Points: what the policy saw at the start. "
    "Thick lines: where the hand went. Thin lines: what the first prediction's samples commanded. "
    "Turn with the mouse; click names to hide them.",
)


def write_report(
    folder: Path,
    attempts: Sequence[Attempt],
    clouds: Mapping[int, NDArray[np.float32]],
    settings: Mapping[str, Any],
) -> None:
    """Write ``report.html``, a page that needs no network.

    Args:
        folder: of the comparison, with the videos that were made.
        attempts: of all methods.
        clouds: start to the points (P, 3 or more) seen there, metres.
        settings: what made these results.
    """
    compared = rows(attempts)
    pairs = list(dict.fromkeys((one.start, one.task) for one in attempts))
    tiles = [
        tile(str(len({start for start, _ in pairs})), "starts"),
        tile(str(len(pairs)), "pairs of a start and a sentence"),
        tile(str(len(compared)), "methods, each tried at all pairs"),
    ]
    bars = [
        rate_bars("Instructed task done", {row.method: row.success for row in compared}),
        rate_bars("Another task done", {row.method: row.others for row in compared}),
    ]
    tables = [
        table("Methods", table_cells(attempts)),
        table("Instructed task done, by task", task_cells(attempts)),
    ]
    views = []
    for pair in pairs[:MAX_VIEWS]:
        tried = [one for one in attempts if (one.start, one.task) == pair]
        views.append(_view(folder, tried, clouds[pair[0]]))
    title = "LangSteer: steering compared"
    write_page(folder / "report.html", title, _SECTION, views, settings, tiles, bars, tables)


def _view(folder: Path, tried: Sequence[Attempt], cloud: NDArray[np.float32]) -> View:
    """What all methods made of a sentence from a start."""
    traces = [cloud_trace(cloud)]
    for one, colour in zip(tried, itertools.cycle(_COLOURS), strict=False):
        traces += _paths(one, colour)
    return View(
        f"start {tried[0].start}: \u201c{tried[0].instruction}\u201d",
        [(f"{one.method} {'✓' if one.success else '✗'}", one.success) for one in tried],
        {one.method: video_path(folder, one.start, one.task, one.method) for one in tried},
        traces,
    )


def _paths(one: Attempt, colour: str) -> list[dict[str, Any]]:
    """Plotly's traces of a method's path and of its first samples; hidden and shown together."""
    name = f"{one.method}: {'done' if one.success else 'not done'}"
    traces = [line_trace(np.array(one.path), colour, 6, name)]
    if one.samples:
        # One trace for all samples, with gaps between them.
        gaps = [np.vstack([sample, [np.nan] * 3]) for sample in np.array(one.samples)]
        traces.append(line_trace(np.vstack(gaps), colour, 1))
    return [{**trace, "legendgroup": one.method} for trace in traces]
