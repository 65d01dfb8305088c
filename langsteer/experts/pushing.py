"""Skills to push a block over the table with closed fingers: aside, or into the drawer.

A push off the block's middle turns it away. So the fingers lie flat against its side, and aim anew
through its middle every centimetre or two.
"""

from collections.abc import Callable

import numpy as np

from langsteer.calvin.layout import BLOCK_WIDTH, TABLE_HEIGHT
from langsteer.calvin.task import ALL_TASKS, COLOURS
from langsteer.experts.articulated import ACROSS, DOWN
from langsteer.experts.blocks import DRAWER_FLOOR, TABLE_EDGE, grip, rise, surface_of
from langsteer.experts.motion import CLOSED, OPEN, Move, Vector
from langsteer.experts.skill import Plan, Planner, Scene
from langsteer.experts.view import BlockView, View

_X, _Y = 0, 1
_HEIGHT = TABLE_HEIGHT + 0.018
_FINGER = 0.012
_GAP = (0.015, 0.025)
"""Metres between fingers and block before the push."""
_AHEAD, _STEP = 0.05, 0.015
"""Metres from the hand to its aim while it pushes, and the way until it aims anew."""
_TURN = 0.4
_DRAWER_HALF = 0.1
"""Metres to either side of the drawer's middle: within them a block is pushed straight in."""
_SETTLING_STEPS = 5


def _flat_yaw(block: BlockView) -> float:
    """The yaw near `ACROSS` with the closed fingers flat against the block's side."""
    quarter = np.pi / 2
    askew = (block.yaw - ACROSS + quarter / 2) % quarter - quarter / 2
    return float(ACROSS + np.clip(askew, -_TURN, _TURN))


def _push_along(
    scene: Scene,
    colour: str,
    axis: int,
    direction: int,
    is_there: Callable[[View], bool],
    far: float,
) -> Plan:
    """Push a block along x or y until it ``is_there``, or until the tcp comes to ``far``; rise."""
    block = scene.view.block(colour)
    euler = (DOWN, 0.0, _flat_yaw(block) + scene.vary(-0.05, 0.05))
    z = _HEIGHT + scene.vary(-0.004, 0.006)
    miss = scene.vary(-0.003, 0.003)

    def at(along: float, height: float = z) -> Vector:
        """``along`` the way, behind the block's middle of the moment."""
        aside = float(scene.view.block(colour).position[1 - axis]) + miss
        return (along, aside, height) if axis == _X else (aside, along, height)

    gap = block.half_extents[axis] + _FINGER + scene.vary(*_GAP)
    start = float(block.position[axis]) - direction * gap
    yield Move(at(start, z + scene.vary(0.06, 0.1)), euler, radius=0.012)
    yield Move(at(start), euler, radius=0.006)
    # Aim anew at the block's middle every centimetre or two: off it the block turns away.
    while direction * (far - scene.hand.position[axis]) > _AHEAD:
        goal = at(float(scene.hand.position[axis]) + direction * _AHEAD)
        yield Move(goal, euler, speed=0.3, radius=_AHEAD - _STEP, steady=True)
        if is_there(scene.view):
            break
    else:
        yield Move(at(far), euler, speed=0.3, radius=0.004, steady=True, until=is_there)
    here = float(scene.hand.position[axis])
    yield Move(at(here - direction * 0.03, z + 0.01), euler)
    yield from rise(scene, scene.vary(0.06, 0.1))


def _push(colour: str, direction: int) -> Planner:
    def plan(scene: Scene) -> Plan:
        """Push the block to the right (+1) or to the left (-1)."""
        block = scene.view.block(colour)
        x = float(block.position[_X])
        travel = scene.vary(0.108, 0.122)

        def is_there(view: View) -> bool:
            return direction * (view.block(colour).position[_X] - x) > travel

        far = x + direction * (travel + 0.03 - block.half_extents[_X] - _FINGER)
        yield from _push_along(scene, colour, _X, direction, is_there, far)

    return plan


def push_into_drawer(scene: Scene) -> Plan:
    """Push a block on the table over the edge into the open drawer.

    A block beside the drawer or close to the door is held and slid there instead.
    """
    view = scene.view
    on_table = [c for c in COLOURS if surface_of(view.block(c)) == "table"]
    if not on_table:  # a driver may have pushed them all away
        return
    middle = float(view.layout.drawer[_X])
    colour = min(on_table, key=lambda c: abs(view.block(c).position[_X] - middle))

    def has_fallen(view: View) -> bool:
        return surface_of(view.block(colour)) == "drawer"

    def lies_in_drawer(view: View) -> bool:
        return bool(view.block(colour).position[2] < DRAWER_FLOOR + BLOCK_WIDTH)

    # A push is the plain way; where it would miss the drawer or hit the door, hold the block.
    is_before_drawer = abs(view.block(colour).position[_X] - middle) < _DRAWER_HALF
    if is_before_drawer and _has_room_behind(view, colour):
        yield from _push_along(scene, colour, _Y, -1, has_fallen, TABLE_EDGE - 0.02)
        yield Move(_place(scene), until=lies_in_drawer)  # it may lean on the edge before it falls
    # The push may leave the block on the edge: then it is carried.
    if not has_fallen(scene.view):
        yield from _slide_into_drawer(scene, colour)
        yield Move(_place(scene), gripper=OPEN, until=lies_in_drawer)
    yield Move(_place(scene), gripper=OPEN, wait=_SETTLING_STEPS)


def _slide_into_drawer(scene: Scene, colour: str) -> Plan:
    """Grip the block, draw it over the table to above the open drawer, and let go."""
    yield from grip(scene, colour)
    x, y, z = _place(scene)
    middle = float(scene.view.layout.drawer[_X])
    x = float(np.clip(x, middle - _DRAWER_HALF, middle + _DRAWER_HALF))
    y = TABLE_EDGE - scene.view.state.drawer / 2 + scene.vary(-0.01, 0.02)
    z += 0.006  # clear of anything the block may catch on
    yield Move((x, y, z), None, CLOSED, speed=0.3, radius=0.008, steady=True)
    yield Move((x, y, z), None, OPEN, wait=_SETTLING_STEPS)
    yield from rise(scene, scene.vary(0.06, 0.1), OPEN)


def _has_room_behind(view: View, colour: str) -> bool:
    """Whether the fingers fit between the block and the door."""
    block = view.block(colour)
    x, y, _ = (float(value) for value in block.position)
    back = y + block.half_extents[_Y] + _GAP[1] + 2 * _FINGER
    return back < view.door_front(x, _FINGER)


def _place(scene: Scene) -> Vector:
    x, y, z = scene.hand.position.tolist()
    return x, y, z


PLANNERS: dict[str, Planner] = {
    **{
        task.name: _push(task.colour, 1 if task.side == "right" else -1)
        for task in ALL_TASKS
        if task.verb == "push"
    },
    "push_into_drawer": push_into_drawer,
}
