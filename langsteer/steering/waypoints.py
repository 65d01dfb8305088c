"""Where the hand must go for each of the eight articulated behaviours: known geometry of scene D.

The built-in scene has scene D's places, in metres, world frame. Parts that move are put where the
task's own condition says (a drawer to be opened is closed), or where the simulator says, when that
is allowed. Fingers are closed and the tcp is 12 mm above their tips.

Example::

    for waypoint in waypoints("open_drawer"): ...       # (7,) poses, NaN where any value will do
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.tasks import checked_task
from langsteer.errors import UserError

_CLOSED = -1.0
_DRAWER_OPEN, _SLIDER_LEFT, _SWITCH_ON = 0.22, 0.28, 0.088
_SWITCH = np.array([0.30, 0.061, 0.495])
_SWITCH_AXIS = np.array([0.0, 0.5, 0.866])
_TILTED = (math.pi, -0.8, 1.24)
"""Far to the right the arm reaches the switch only with the gripper tilted towards it."""


@dataclass(frozen=True)
class Joints:
    """Values of the scene's joints in metres (``scene_obs[:4]``), where they may be known."""

    slider: float
    drawer: float
    switch: float


def _pose(
    x: float, y: float, z: float, euler: tuple[float, float, float] | None = None
) -> NDArray[np.float64]:
    turned = (math.nan,) * 3 if euler is None else euler
    return np.array([x, y, z, *turned, _CLOSED])


def _open_drawer(joints: Joints | None) -> list[NDArray[np.float64]]:
    y = -0.205 - (0.0 if joints is None else joints.drawer)
    return [_pose(0.18, y, 0.48), _pose(0.18, y, 0.363), _pose(0.18, -0.205 - 0.215, 0.363)]


def _close_drawer(joints: Joints | None) -> list[NDArray[np.float64]]:
    y = -0.30 - (_DRAWER_OPEN if joints is None else joints.drawer)
    return [_pose(0.18, y, 0.48), _pose(0.18, y, 0.363), _pose(0.18, -0.255, 0.363)]


def _slider_left(joints: Joints | None) -> list[NDArray[np.float64]]:
    x = 0.071 - (0.0 if joints is None else joints.slider)
    return [
        _pose(x + 0.03, -0.07, 0.575),
        _pose(x + 0.02, -0.007, 0.536),
        _pose(-0.22, -0.007, 0.536),
    ]


def _slider_right(joints: Joints | None) -> list[NDArray[np.float64]]:
    x = 0.009 - (_SLIDER_LEFT if joints is None else joints.slider)
    return [
        _pose(x - 0.03, -0.07, 0.575),
        _pose(x - 0.02, -0.007, 0.536),
        _pose(0.024, -0.007, 0.536),
    ]


def _button(joints: Joints | None) -> list[NDArray[np.float64]]:
    return [_pose(-0.12, -0.12, 0.55), _pose(-0.12, -0.12, 0.455)]


def _switch(on: bool) -> Callable[[Joints | None], list[NDArray[np.float64]]]:
    def places(joints: Joints | None) -> list[NDArray[np.float64]]:
        value = (0.0 if on else _SWITCH_ON) if joints is None else joints.switch
        offset = (-0.05, -0.085, 0.012) if on else (-0.05, -0.045, 0.055)
        touch = _SWITCH + np.array(offset)
        begin, end = touch + _SWITCH_AXIS * value, touch + _SWITCH_AXIS * (_SWITCH_ON if on else 0)
        before = begin + np.array([0.0, -0.07, 0.015] if on else [0.0, -0.035, 0.045])
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

ARTICULATED = tuple(_PLACES)
"""The eight articulated behaviours."""


def waypoints(task: str, joints: Joints | None = None) -> list[NDArray[np.float64]]:
    """The poses (7,) to be passed in order: before the part, at it, and where it is moved to.

    Raises:
        UserError: no task has this name, or there is no map for it.
    """
    if checked_task(task) not in _PLACES:
        raise UserError(
            f"steering=value_map knows no places for {task}; it knows {', '.join(ARTICULATED)}"
        )
    return _PLACES[task](joints)
