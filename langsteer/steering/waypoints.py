"""Places for the hand in the eight articulated behaviours, and to push and lift blocks.

Places are metres in the world frame; the built-in scene shares those of scene D. If steering may
not read the joints, each part is taken to stand where its task begins: a drawer to open is closed.
A block's place must be known. Fingers are closed except to grip; the tcp is 12 mm above their tips.

Example::

    for waypoint in waypoints("open_drawer"): ...       # (7,) poses, NaN where any value will do
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.scene_obs import (
    BEFORE_LEVER_FROM_ABOVE,
    BEFORE_LEVER_FROM_BELOW,
    DRAWER_RANGE,
    LEVER_FROM_ABOVE,
    LEVER_FROM_BELOW,
    SLIDER_RANGE,
    SWITCH_RANGE,
)
from langsteer.calvin.task import COLOURS, checked_task
from langsteer.errors import UserError

_CLOSED, _OPEN = -1.0, 1.0
_SWITCH = np.array([0.30, 0.061, 0.495])
_SWITCH_AXIS = np.array([0.0, 0.5, 0.866])
_ACROSS_LEVER = np.array([-0.05, 0.0, 0.0])
_TILTED = (math.pi, -0.8, 1.24)
"""Far to the right the arm reaches the switch only with the gripper tilted towards it."""

_DOWN, _ACROSS = math.pi, math.pi / 2
"""Roll of a hand that points down; yaw of a hand that faces the table."""
_GRIP_HEIGHT, _PUSH_HEIGHT = -0.004, 0.004
"""Height of the tcp above a block's centre, metres. The hand counts as arrived a little before a
place, so both are lower than the fingers should close."""
_BESIDE, _PUSHED_TO = 0.09, 0.10
"""Metres along x from a block's centre: the push begins at the first and ends at the second."""
_ABOVE = 0.11


@dataclass(frozen=True)
class Joints:
    """Joint values of the scene in metres (``scene_obs[:4]``), if they may be known."""

    slider: float
    drawer: float
    switch: float

    @classmethod
    def of(cls, scene_obs: NDArray[np.floating]) -> "Joints":
        """Those of ``scene_obs`` (24,)."""
        return cls(*(float(scene_obs[index]) for index in (0, 1, 3)))


def _pose(
    x: float,
    y: float,
    z: float,
    euler: tuple[float, float, float] | None = None,
    gripper: float = _CLOSED,
) -> NDArray[np.float64]:
    turned = (math.nan,) * 3 if euler is None else euler
    return np.array([x, y, z, *turned, gripper])


def _open_drawer(joints: Joints | None) -> list[NDArray[np.float64]]:
    y = -0.205 - (0.0 if joints is None else joints.drawer)
    return [_pose(0.18, y, 0.48), _pose(0.18, y, 0.363), _pose(0.18, -0.205 - 0.215, 0.363)]


def _close_drawer(joints: Joints | None) -> list[NDArray[np.float64]]:
    y = -0.30 - (DRAWER_RANGE if joints is None else joints.drawer)
    return [_pose(0.18, y, 0.48), _pose(0.18, y, 0.363), _pose(0.18, -0.255, 0.363)]


def _slider_left(joints: Joints | None) -> list[NDArray[np.float64]]:
    x = 0.071 - (0.0 if joints is None else joints.slider)
    return [
        _pose(x + 0.03, -0.07, 0.575),
        _pose(x + 0.02, -0.007, 0.536),
        _pose(-0.22, -0.007, 0.536),
    ]


def _slider_right(joints: Joints | None) -> list[NDArray[np.float64]]:
    x = 0.009 - (SLIDER_RANGE if joints is None else joints.slider)
    return [
        _pose(x - 0.03, -0.07, 0.575),
        _pose(x - 0.02, -0.007, 0.536),
        _pose(0.024, -0.007, 0.536),
    ]


def _button(joints: Joints | None) -> list[NDArray[np.float64]]:
    return [_pose(-0.12, -0.12, 0.55), _pose(-0.12, -0.12, 0.455)]


def _switch(on: bool) -> Callable[[Joints | None], list[NDArray[np.float64]]]:
    def places(joints: Joints | None) -> list[NDArray[np.float64]]:
        value = (0.0 if on else SWITCH_RANGE) if joints is None else joints.switch
        touch = _SWITCH + (_ACROSS_LEVER + (LEVER_FROM_BELOW if on else LEVER_FROM_ABOVE))
        begin = touch + _SWITCH_AXIS * value
        end = touch + _SWITCH_AXIS * (SWITCH_RANGE if on else 0)
        before = begin + np.array(BEFORE_LEVER_FROM_BELOW if on else BEFORE_LEVER_FROM_ABOVE)
        beyond = end + _SWITCH_AXIS * (0.03 if on else -0.03)
        return [_pose(place[0], place[1], place[2], _TILTED) for place in (before, begin, beyond)]

    return places


_PLACES: dict[str, Callable[[Joints | None], list[NDArray[np.float64]]]] = {
    "open_drawer": _open_drawer,
    "close_drawer": _close_drawer,
    "move_slider_left": _slider_left,
    "move_slider_right": _slider_right,
    "turn_on_led": _button,
    "turn_off_led": _button,
    "turn_on_lightbulb": _switch(on=True),
    "turn_off_lightbulb": _switch(on=False),
}


def _lift(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    x, y, z, yaw = block.tolist()
    z += _GRIP_HEIGHT
    # The fingers close on the block's width, in the nearer of its two directions.
    turned = yaw + math.pi * round((_ACROSS - yaw) / math.pi)
    down = (_DOWN, 0.0, turned)
    return [
        _pose(x, y, z + _ABOVE, down, _OPEN),
        _pose(x, y, z, down, _OPEN),
        _pose(x, y, z, down, _CLOSED),
        _pose(x, y, z + _ABOVE, down, _CLOSED),
    ]


def _push(direction: int) -> Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]:
    def places(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        x, y, z = block[:3].tolist()
        z += _PUSH_HEIGHT
        down = (_DOWN, 0.0, _ACROSS)
        beside, end = x - direction * _BESIDE, x + direction * _PUSHED_TO
        return [
            _pose(beside, y, z + _ABOVE, down),
            _pose(beside, y, z, down),
            _pose(end, y, z, down),
        ]

    return places


_BLOCK_PLACES: dict[str, Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]] = {
    "push_left": _push(-1),
    "push_right": _push(1),
    "lift_table": _lift,
}

ARTICULATED = tuple(_PLACES)
"""The eight articulated behaviours."""


SCENES = ("builtin", "D")
"""Scenes with these places."""


def require_places(task: str, scene: str = "builtin") -> None:
    """Check that a task's places in a scene are known. A block's place is found in any scene.

    Raises:
        UserError: the task is unknown, or has no known places.
    """
    if task in _PLACES and scene not in SCENES:
        raise UserError(
            f"steering=value_map knows the places of {task} in scene {' and '.join(SCENES)} only, "
            f"not in {scene}; use steering=reference"
        )
    if checked_task(task) not in _PLACES and without_block(task) not in _BLOCK_PLACES:
        raise UserError(
            f"steering=value_map knows no places for {task}; it knows {', '.join(ARTICULATED)}, "
            "and pushing and lifting blocks on the table"
        )


def waypoints(
    task: str, joints: Joints | None = None, block: NDArray[np.float64] | None = None
) -> list[NDArray[np.float64]]:
    """The poses (7,) in order: before the part, at it, and at the end of its move.

    Args:
        task: as `require_places` accepts it.
        joints: of the scene, if they may be known.
        block: (4,) the place of the task's block (`blocks.block_place`).

    Raises:
        UserError: as `require_places`.
    """
    require_places(task)
    if task in _PLACES:
        return _PLACES[task](joints)
    assert block is not None  # its place is read where the task names one
    return _BLOCK_PLACES[without_block(task)](block)


def without_block(task: str) -> str:
    """A task's kind, the same for all colours: ``push_red_block_left`` to ``push_left``."""
    return re.sub(rf"_({'|'.join(COLOURS)})_block_", "_", task)
