"""Choose the next feasible task, for long chains as in a person's free play.

Example::

    task = choose_task(view, SKILLED_TASKS, history, rng)
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from langsteer.calvin.benchmark import category, successors
from langsteer.calvin.layout import BLOCK_WIDTH, TABLE_HEIGHT
from langsteer.calvin.task import COLOURS
from langsteer.experts.blocks import held_colour, surface_of
from langsteer.experts.starts import has_room
from langsteer.experts.view import REACH, BlockView, View

_OPEN_SHARE, _CLOSED_SHARE = 0.52, 0.48


def symbolic_state(view: View) -> dict[str, int | str]:
    """The scene in the words of `langsteer.calvin.benchmark`.

    A half-open door or drawer is ``"between"``, a fallen block ``"lost"``: no task can be done with
    them.
    """
    held = held_colour(view)
    state: dict[str, int | str] = {
        "led": int(view.state.led),
        "lightbulb": int(view.state.lightbulb),
        "slider": _extreme(view.state.slider / view.layout.slider_range, "right", "left"),
        "drawer": _extreme(view.state.drawer / view.layout.drawer_range, "closed", "open"),
        "grasped": int(held is not None),
    }
    for colour in COLOURS:
        state[f"{colour}_block"] = "grasped" if colour == held else _place(view, colour)
    for upper, lower in _towers(view, held):
        state[f"{upper}_block"], state[f"{lower}_block"] = "stacked_top", "stacked_bottom"
    return state


def _extreme(share: float, low: str, high: str) -> str:
    if share < _CLOSED_SHARE:
        return low
    return high if share > _OPEN_SHARE else "between"


def _place(view: View, colour: str) -> str:
    block = view.block(colour)
    x, _, z = block.position
    if abs(x) > REACH or z < TABLE_HEIGHT - 0.1 or block.stands:
        return "lost"
    surface = surface_of(block)
    return f"slider_{view.layout.half_of(x)}" if surface == "slider" else surface


def _towers(view: View, held: str | None) -> list[tuple[str, str]]:
    """(upper, lower) of each pair of blocks stacked on the table."""
    resting = [colour for colour in COLOURS if colour != held]
    pairs = [(upper, lower) for upper in resting for lower in resting if upper != lower]
    return [pair for pair in pairs if _stands_on(view.block(pair[0]), view.block(pair[1]))]


def _stands_on(upper: BlockView, lower: BlockView) -> bool:
    rise = upper.position - lower.position
    return abs(rise[2] - BLOCK_WIDTH) < 0.01 and float(np.hypot(rise[0], rise[1])) < BLOCK_WIDTH


def feasible_tasks(view: View, tasks: Sequence[str]) -> list[str]:
    """The tasks feasible now."""
    state = symbolic_state(view)
    return [task for task in tasks if len(successors(state, task)) > 0 and has_room(task, view)]


def choose_task(
    view: View, tasks: Sequence[str], history: Sequence[str], rng: np.random.Generator
) -> str | None:
    """A task feasible now, rather of a kind not done lately; None if there is none."""
    feasible = feasible_tasks(view, tasks)
    if not feasible:
        return None
    done = Counter(category(task) for task in history)
    kinds = sorted({category(task) for task in feasible})
    of_kind = Counter(category(task) for task in feasible)
    # Kinds with many tasks, pushing and turning above all, take more to learn.
    weights = np.array([np.sqrt(of_kind[kind]) / (1 + done[kind]) for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    options = [task for task in feasible if category(task) == kind]
    return options[rng.integers(len(options))]
