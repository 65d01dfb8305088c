"""The picture of a run: losses, errors of sampled actions, and the learning rate, over its steps.

Example::

    draw_curves(read_metrics(folder / "metrics.jsonl"), folder / "curves.png")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langsteer.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = dict[str, Any]
_POSITION, _GRIPPER = "val_position_error_mm", "val_gripper_accuracy"
DRAWN = ("loss", "val_loss", _POSITION, _GRIPPER, "learning_rate")
"""Keys of the records drawn."""
_MOST_POINTS = 4000  # of a curve: more than a picture of 800 pixels shows


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Write a PNG, titled with the name of its folder; the best validation is marked."""
    # Imported here: it takes a second, and most commands draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    losses, errors, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    grippers = errors.twinx()
    _draw(losses, records, "loss", "-", "training", "C0")
    _draw(losses, records, "val_loss", "o-", "validation", "C1")
    _draw(errors, records, _POSITION, "o-", "position error", "C2")
    _draw(grippers, records, _GRIPPER, "s--", "right grippers", "C3", factor=100)
    _draw(rate, records, "learning_rate", "-", "", "C4")
    losses.set(yscale="log", ylabel="loss", title=path.parent.name)
    label_ticks(losses)
    errors.set_ylabel("position error (mm)", color="C2")
    grippers.set_ylabel("right grippers (%)", color="C3")
    errors.set_ylim(bottom=0)
    grippers.set_ylim(top=101)  # or its axis may go on beyond 100 %
    rate.set(ylabel="learning rate", xlabel="optimiser step")
    for axes in (losses, errors, rate):
        axes.grid(alpha=0.3)
    _mark_best((losses, errors), records)
    if losses.get_legend_handles_labels()[0]:
        losses.legend()
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def label_ticks(axes: "Axes") -> None:
    """Plain numbers at a logarithmic axis of y: within a decade evenly spread, else at 1, 2, 5."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    if high < 10 * low:
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        return
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_minor_formatter(FuncFormatter(_tick))


def _tick(value: float, position: int | None) -> str:
    """``0.02`` instead of a power of ten, at 1, 2 and 5 of each."""
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "125" else ""


def _draw(
    axes: "Axes",
    records: Sequence[Record],
    key: str,
    style: str,
    label: str,
    colour: str,
    factor: float = 1,
) -> None:
    points = thinned([(one["step"], factor * one[key]) for one in records if key in one])
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label, color=colour, markersize=3)


def _mark_best(panels: Sequence["Axes"], records: Sequence[Record]) -> None:
    """A line where the validation loss is lowest."""
    validated = [one for one in records if "val_loss" in one]
    if not validated:
        return
    best = min(validated, key=lambda one: one["val_loss"])
    for axes, label in zip(panels, (f"best: {best['val_loss']:.4g}", ""), strict=True):
        axes.axvline(best["step"], color="gray", linestyle=":", label=label)


def thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Evenly spread points, at most about `_MOST_POINTS`, the last one included."""
    stride = len(points) // _MOST_POINTS + 1
    return points[(len(points) - 1) % stride :: stride]
