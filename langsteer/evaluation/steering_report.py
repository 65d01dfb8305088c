"""The table and the page of a comparison of steerings.

Example::

    write_table(Path("table.md"), attempts)
    write_report(Path("report.html"), attempts, clouds)
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from langsteer.evaluation.statistics import Rate
from langsteer.files import replacing

if TYPE_CHECKING:
    from langsteer.evaluation.attempts import Attempt

BASE = "none"
RESAMPLES = 4000
_MAX_FIGURES = 24
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>LangSteer: steering compared</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1a1a1a; background: #fff }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left }}
.figure {{ height: 30rem; max-width: 100% }}
</style><script>{plotly}</script></head><body>
<h1>Steering compared</h1>
<p>Each row: every feasible task asked for from every start, with the same noise.</p>
{table}
{by_task}
<h2>Paths</h2>
<p>Grey: the points that the policy saw at the start. Lines: where the hand went. Thin lines: what
the first prediction's samples commanded. Turn with the mouse; click names to hide them.</p>
{figures}
<script>for (const one of {data}) Plotly.newPlot(one.id, one.data, one.layout,
  {{responsive: true}});</script>
</body></html>
"""


@dataclass(frozen=True)
class Row:
    """One method's numbers; ``gain`` is its success less the base's, with a 95 % interval."""

    method: str
    success: Rate
    others: Rate
    gain: tuple[float, float, float] | None
    prediction_ms: float
    denoiser_calls: float
    gradient_calls: float


def paired_gain(attempts: Sequence["Attempt"], method: str) -> tuple[float, float, float]:
    """Mean difference of success to the base over pairs, and its 95 % interval.

    Pairs of one start share scene and noise, so whole starts are drawn with replacement (paired
    cluster bootstrap, Efron & Tibshirani 1993, percentile interval, 4000 resamples of seed 0).
    """
    base = {(one.start, one.task): one.success for one in attempts if one.method == BASE}
    differences: dict[int, list[int]] = {}
    for one in attempts:
        if one.method == method:
            gain = int(one.success) - int(base[one.start, one.task])
            differences.setdefault(one.start, []).append(gain)
    sums = np.array([sum(gains) for gains in differences.values()])
    counts = np.array([len(gains) for gains in differences.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def rows(attempts: Sequence["Attempt"]) -> list[Row]:
    """A row for each method, in the order in which they were tried."""
    found = []
    for method in dict.fromkeys(one.method for one in attempts):
        own = [one for one in attempts if one.method == method]
        found.append(
            Row(
                method,
                Rate(sum(one.success for one in own), len(own)),
                Rate(sum(bool(one.others) for one in own), len(own)),
                None if method == BASE else paired_gain(attempts, method),
                float(np.median([one.prediction_ms for one in own])),
                float(np.mean([one.denoiser_calls for one in own])),
                float(np.mean([one.gradient_calls for one in own])),
            )
        )
    return found


_HEADINGS = (
    "method",
    "instructed task done",
    "gain over none, paired (95 %)",
    "another task done",
    "ms a prediction",
    "times none",
    "denoiser calls",
    "gradients",
)


def table_cells(attempts: Sequence["Attempt"]) -> list[list[str]]:
    """The table's text, headings first."""
    found = rows(attempts)
    base_ms = next(row.prediction_ms for row in found if row.method == BASE)
    cells = [list(_HEADINGS)]
    for row in found:
        gain = (
            ""
            if row.gain is None
            else "{:+.0f} ({:+.0f} to {:+.0f})".format(*(100 * value for value in row.gain))
        )
        low, high = (100 * bound for bound in row.success.interval)
        cells.append(
            [
                row.method,
                f"{100 * row.success.value:.0f} % ({row.success.successes}/{row.success.attempts}; "
                f"{low:.0f}-{high:.0f})",
                gain,
                f"{100 * row.others.value:.0f} %",
                f"{row.prediction_ms:.0f}",
                f"{row.prediction_ms / base_ms:.2f}",
                f"{row.denoiser_calls:.0f}",
                f"{row.gradient_calls:.0f}",
            ]
        )
    return cells


def task_cells(attempts: Sequence["Attempt"]) -> list[list[str]]:
    """Success of each method at each task, headings first."""
    methods = list(dict.fromkeys(one.method for one in attempts))
    cells = [["task", *methods]]
    for task in dict.fromkeys(one.task for one in attempts):
        counts = []
        for method in methods:
            own = [one.success for one in attempts if (one.method, one.task) == (method, task)]
            counts.append(f"{sum(own)}/{len(own)}")
        cells.append([task, *counts])
    return cells


def write_table(path: Path, attempts: Sequence["Attempt"]) -> None:
    """Write both tables in Markdown."""
    with replacing(path) as temporary:
        tables = [_markdown(cells) for cells in (table_cells(attempts), task_cells(attempts))]
        temporary.write_text("\n".join(tables), encoding="utf-8")


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body]) + "\n"


def _html_table(cells: Sequence[Sequence[str]]) -> str:
    def line(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in row) + "</tr>"

    head, *body = cells
    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in body) + "</table>"


def write_report(
    path: Path, attempts: Sequence["Attempt"], clouds: Mapping[int, NDArray[np.float32]]
) -> None:
    """Write a page that needs no network: tables, and the paths over the scene.

    Args:
        path: of the page.
        attempts: of all methods.
        clouds: start to the points (P, 3 or more) seen there.
    """
    pairs = list(dict.fromkeys((one.start, one.task) for one in attempts))[:_MAX_FIGURES]
    data, places = [], []
    for start, task in pairs:
        own = [one for one in attempts if (one.start, one.task) == (start, task)]
        name = f"paths-{start}-{task}"
        data.append({"id": name, "data": _lines(own, clouds[start]), "layout": _LAYOUT})
        title = html.escape(f"Start {start}: \u201c{own[0].instruction}\u201d")
        places.append(f'<h3>{title}</h3><div class="figure" id="{name}"></div>')
    page = _PAGE.format(
        plotly=get_plotlyjs(),
        table=_html_table(table_cells(attempts)),
        by_task=_html_table(task_cells(attempts)),
        figures="".join(places),
        # "</" would end the script element that the data lies in.
        data=json.dumps(data).replace("</", "<\\/"),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


_LAYOUT: dict[str, Any] = {
    "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
    "scene": {"aspectmode": "data"},
    "legend": {"x": 0, "y": 1},
}


def _lines(attempts: Sequence["Attempt"], cloud: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Plotly's traces: the cloud, each method's path and its samples."""
    points: dict[str, Any] = {"type": "scatter3d", "mode": "markers", "name": "points"}
    points |= {**_xyz(cloud[:, :3]), "marker": {"size": 2, "color": "#bbb"}, "hoverinfo": "skip"}
    traces = [points]
    for index, one in enumerate(attempts):
        colour = _COLOURS[index % len(_COLOURS)]
        verdict = "done" if one.success else "not done"
        line = {"type": "scatter3d", "mode": "lines", "legendgroup": one.method}
        name = f"{one.method}: {verdict}"
        thick = {"width": 6, "color": colour}
        traces.append({**line, **_xyz(np.array(one.path)), "name": name, "line": thick})
        if one.samples:
            # One trace for all samples, with gaps between them.
            gaps = [np.vstack([sample, [np.nan] * 3]) for sample in np.array(one.samples)]
            thin = {"width": 1, "color": colour}
            traces.append({**line, **_xyz(np.vstack(gaps)), "showlegend": False, "line": thin})
    return traces


def _xyz(points: NDArray[Any]) -> dict[str, list[float | None]]:
    """Columns for Plotly, in which a gap is None."""
    columns = np.asarray(points, dtype=np.float64).round(4).T
    return {
        axis: [None if np.isnan(value) else float(value) for value in column]
        for axis, column in zip("xyz", columns, strict=True)
    }
