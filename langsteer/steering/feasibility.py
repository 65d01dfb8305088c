"""Whether a task can be done in the present scene: an open drawer cannot be opened.

Example::

    require_feasible("open_drawer", env.info())     # UserError where the drawer stands open
"""

from collections.abc import Callable

from langsteer.calvin.scene_obs import DRAWER_RANGE, SLIDER_RANGE
from langsteer.calvin.task import BLOCKS, Task
from langsteer.calvin.tasks import (
    DRAWER_TRAVEL,
    ROBOT,
    SLIDER_TRAVEL,
    SURFACE_LINKS,
    TABLE,
    TABLE_TOP,
    BlockInfo,
    SceneInfo,
)
from langsteer.errors import UserError

Check = Callable[[SceneInfo], str | None]


def why_infeasible(task: str, scene: SceneInfo) -> str | None:
    """The reason against ``task`` in ``scene``, or None if it can be done.

    The oracle's demands on the start count, and the room to move. The arm's reach does not.

    Raises:
        UserError: no task has this name.
    """
    wanted = Task.named(task)
    if task in _CHECKS:
        return _CHECKS[task](scene)
    block = scene.blocks[wanted.block]
    # The oracle counts a lift only from the surface in the task's name.
    if wanted.verb == "lift":
        rests = (TABLE, SURFACE_LINKS[wanted.surface]) in block.contacts
        return None if rests else f"{wanted.block} does not lie on the {wanted.surface}"
    return None if block.touched_bodies - {ROBOT} else f"{wanted.block} lies on nothing"


def require_feasible(task: str, scene: SceneInfo) -> None:
    """Raise `UserError` with the reason if ``task`` cannot be done in ``scene``."""
    reason = why_infeasible(task, scene)
    if reason is not None:
        raise UserError(f"{task} cannot be done here: {reason}; give another instruction")


def _room(joint: str, value_range: float, travel: float, grows: bool, reason: str) -> Check:
    def check(scene: SceneInfo) -> str | None:
        value = getattr(scene, joint)
        room = value_range - value if grows else value
        return None if room > travel else reason

    return check


def _light(name: str, lit: bool) -> Check:
    def check(scene: SceneInfo) -> str | None:
        state = "on" if lit else "off"
        return f"the {name} is {state} already" if getattr(scene, name) is lit else None

    return check


def _held(scene: SceneInfo) -> list[BlockInfo]:
    return [block for block in scene.blocks.values() if block.touched_bodies == {ROBOT}]


def _place(scene: SceneInfo) -> str | None:
    return None if _held(scene) else "no block is held"


def _stack(scene: SceneInfo) -> str | None:
    loose = [block for block in scene.blocks.values() if not block.touched_bodies & set(BLOCKS)]
    return None if loose else "every block touches another"


def _unstack(scene: SceneInfo) -> str | None:
    stacked = [
        block
        for block in scene.blocks.values()
        if block.touched_bodies and block.touched_bodies <= set(BLOCKS)
    ]
    return None if stacked else "no block lies on another"


def _push_into_drawer(scene: SceneInfo) -> str | None:
    if all(block.contacts != {(TABLE, TABLE_TOP)} for block in scene.blocks.values()):
        return "no block lies on the table"
    return None if scene.drawer > DRAWER_TRAVEL else "the drawer is closed"


_CHECKS: dict[str, Check] = {
    "open_drawer": _room("drawer", DRAWER_RANGE, DRAWER_TRAVEL, True, "the drawer is open"),
    "close_drawer": _room("drawer", DRAWER_RANGE, DRAWER_TRAVEL, False, "the drawer is closed"),
    "move_slider_left": _room("slider", SLIDER_RANGE, SLIDER_TRAVEL, True, "the door is left"),
    "move_slider_right": _room("slider", SLIDER_RANGE, SLIDER_TRAVEL, False, "the door is right"),
    "turn_on_lightbulb": _light("lightbulb", True),
    "turn_off_lightbulb": _light("lightbulb", False),
    "turn_on_led": _light("led", True),
    "turn_off_led": _light("led", False),
    "place_in_slider": _place,
    "place_in_drawer": _place,
    "stack_block": _stack,
    "unstack_block": _unstack,
    "push_into_drawer": _push_into_drawer,
}
