"""The results of a comparison of steerings: its table, and its page of paths.

Example::

    write_report(folder, {"settings": ..., "environment": ...}, attempts, clouds)
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.configuration import option_note
from langsteer.evaluation.attempts import BLANK, RIVAL, Attempt
from langsteer.evaluation.page import (
    MAX_PANELS,
    Clip,
    Panel,
    Section,
    cloud_trace,
    line_trace,
    rate_bars,
    table,
    tile,
    write_page,
)
from langsteer.evaluation.run import facts
from langsteer.evaluation.table import SHARE, rows, table_cells, tables, task_cells
from langsteer.files import replacing, write_json

_COLOURS = ("#3b82f6", "#e5484d", "#2da44e", "#9467bd", "#f5a524", "#8c564b", "#e377c2", "#17becf")
_SECTION = Section(
    "One start, one sentence, every method",
    "All methods begin alike and draw the same noise. Points: what the policy saw at the start. "
    "Thick lines: where the hand went. Thin lines: what the first prediction's samples commanded. "
    "Turn with the mouse; click names to hide them. " + SHARE,
)


def video_path(folder: Path, start: int, task: str, method: str) -> Path:
    """Where the film of an attempt lies in the folder of a comparison."""
    return folder / "videos" / f"{start:03d}_{task}_{method}.mp4"


def write_report(
    folder: Path,
    made_by: Mapping[str, Any],
    attempts: Sequence[Attempt],
    clouds: Mapping[int, NDArray[np.float32]],
) -> None:
    """Write ``results.json``, ``table.md`` and ``report.html``.

    Args:
        folder: of the comparison.
        made_by: its ``settings`` and ``environment``, plain.
        attempts: all of them.
        clouds: start's number to what the policy saw there first, (P, 3) metres.
    """
    results = {**made_by, "attempts": [asdict(one) for one in attempts]}
    write_json(folder / "results.json", results, indent=None)
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(tables(attempts), encoding="utf-8")
    _write_page(folder, made_by, attempts, clouds)


def _write_page(
    folder: Path,
    made_by: Mapping[str, Any],
    attempts: Sequence[Attempt],
    clouds: Mapping[int, NDArray[np.float32]],
) -> None:
    """Write ``report.html``: rates, tables, and each method's paths of the hand."""
    compared = rows(attempts)
    pairs = list(dict.fromkeys((one.start, one.task) for one in attempts))
    starts = list(dict.fromkeys(start for start, _ in pairs))
    panels = []
    for pair in pairs[:MAX_PANELS]:
        tried = [one for one in attempts if (one.start, one.task) == pair]
        # Counted from 1: the numbers of the draws have holes where no task was feasible.
        panels.append(_panel(folder, starts.index(pair[0]) + 1, tried, clouds[pair[0]]))
    write_page(
        folder / "report.html",
        title="LangSteer: steering compared",
        section=_SECTION.of(len(pairs)),
        panels=panels,
        settings=made_by,
        facts=facts(made_by["settings"], made_by["environment"]),
        tiles=[
            tile(str(len(starts)), "starts"),
            tile(str(len(pairs)), "pairs of a start and a sentence"),
            tile(str(len(compared)), "methods, each tried at all pairs"),
        ],
        bars=[
            rate_bars(
                "Instructed task done",
                {row.method: row.success for row in compared},
                {row.method: _note(row.method) for row in compared},
            ),
            rate_bars("Another task done", {row.method: row.others for row in compared}),
        ],
        tables=[
            table("Methods", table_cells(attempts)),
            table("Instructed task done, by task", task_cells(attempts)),
        ],
    )


def _note(method: str) -> str:
    """What a method is, in a line."""
    if method == RIVAL:
        return "A policy trained with sentences, told this one"
    if method.startswith(RIVAL):
        return "That policy, steered as well"
    if method.endswith(BLANK):
        return "Its control: a network that knows nothing, steered alike"
    return option_note("steering", method)


def _panel(
    folder: Path, number: int, tried: Sequence[Attempt], cloud: NDArray[np.float32]
) -> Panel:
    """All methods' attempts at a sentence from a start, the page's ``number``-th."""
    traces = [cloud_trace(cloud)]
    for one, colour in zip(tried, itertools.cycle(_COLOURS), strict=False):
        traces += _paths(one, colour)
    return Panel(
        f"start {number}: \u201c{tried[0].instruction}\u201d",
        [(f"{one.method} {'✓' if one.success else '✗'}", one.success) for one in tried],
        [
            Clip(
                one.method,
                video_path(folder, one.start, one.task, one.method),
                np.array(one.path),
                colour,
            )
            for one, colour in zip(tried, itertools.cycle(_COLOURS), strict=False)
        ],
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
