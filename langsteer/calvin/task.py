"""The 34 tasks of CALVIN, each taken apart once: verb, thing, colour and side.

Example::

    task = Task.named("lift_red_block_drawer")
    task.verb, task.about, task.colour, task.surface    # ("lift", "block", "red", "drawer")
    [task.name for task in ALL_TASKS if task.about == "drawer"]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from langsteer.errors import UserError

COLOURS = ("red", "blue", "pink")
BLOCKS = tuple(f"block_{colour}" for colour in COLOURS)
SIDES = ("left", "right")
SURFACES = ("table", "slider", "drawer")


@dataclass(frozen=True)
class Task:
    """One task; a part its name leaves open is ``""``.

    Attributes:
        name: CALVIN's own, e.g. ``"push_red_block_left"``.
        verb: ``rotate``, ``push``, ``lift``, ``move``, ``open``, ``close``, ``place``, ``stack``,
            ``unstack``, ``turn_on``, ``turn_off`` or ``push_into``.
        about: the thing to change: ``block``, ``slider``, ``drawer``, ``lightbulb``, ``led``.
        colour: of the block named, one of `COLOURS`.
        side: ``left`` or ``right``.
        surface: one of `SURFACES`: the block is lifted from it, placed in it or pushed into it.
    """

    name: str
    verb: str
    about: str
    colour: str = ""
    side: str = ""
    surface: str = ""

    @classmethod
    def named(cls, name: str) -> "Task":
        """The task of this name.

        Raises:
            UserError: there is none; the message lists the nearest names.
        """
        if name in _BY_NAME:
            return _BY_NAME[name]
        nearest = get_close_matches(name, TASKS, n=3) or sorted(TASKS)
        raise UserError(
            f"no task {name!r}: expected one of CALVIN's 34, such as {', '.join(nearest)}"
        )

    @property
    def block(self) -> str:
        """The block named, as the scene calls it: ``"block_red"``."""
        assert self.colour, f"{self.name} names no block"
        return f"block_{self.colour}"


def _all_tasks() -> Iterator[Task]:
    """In the order of CALVIN's configuration; the benchmark's draws depend on it."""
    for verb in ("rotate", "push"):
        for colour in COLOURS:
            for side in ("right", "left"):
                yield Task(f"{verb}_{colour}_block_{side}", verb, "block", colour, side)
    for side in SIDES:
        yield Task(f"move_slider_{side}", "move", "slider", side=side)
    for verb in ("open", "close"):
        yield Task(f"{verb}_drawer", verb, "drawer")
    for colour in COLOURS:
        for surface in SURFACES:
            name = f"lift_{colour}_block_{surface}"
            yield Task(name, "lift", "block", colour, surface=surface)
    for surface in ("slider", "drawer"):
        yield Task(f"place_in_{surface}", "place", "block", surface=surface)
    for verb in ("stack", "unstack"):
        yield Task(f"{verb}_block", verb, "block")
    for light in ("lightbulb", "led"):
        for verb in ("turn_on", "turn_off"):
            yield Task(f"{verb}_{light}", verb, light)
    yield Task("push_into_drawer", "push_into", "block", surface="drawer")


ALL_TASKS: tuple[Task, ...] = tuple(_all_tasks())
TASKS: tuple[str, ...] = tuple(task.name for task in ALL_TASKS)
"""Names of the 34 tasks."""

_BY_NAME = {task.name: task for task in ALL_TASKS}


def checked_task(name: str) -> str:
    """The name itself, if it is one of `TASKS`.

    Raises:
        UserError: as `Task.named`.
    """
    return Task.named(name).name
