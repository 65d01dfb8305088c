"""Skills for the blocks: turn, lift, put down, stack.

All blocks are 4 cm wide and high; the fingers close on that width. Let a block's long side point
along ψ: a gripper pointing down at yaw ψ opens its fingers across it.
"""

from collections.abc import Iterable

import numpy as np

from langsteer.calvin.layout import BLOCK_WIDTH, TABLE_HEIGHT
from langsteer.calvin.task import ALL_TASKS, COLOURS
from langsteer.experts.articulated import ACROSS, DOWN
from langsteer.experts.motion import CLOSED, OPEN, Move, Vector
from langsteer.experts.skill import Plan, Planner, Scene
from langsteer.experts.view import BlockView, View, half_extents

GRIP_HEIGHT = 0.012
"""Metres of the tcp above a block's centre while gripping it; the tips reach 12 mm below."""

DRAWER_FLOOR = TABLE_HEIGHT - 0.098
"""Height of the drawer's floor: a block lies in it with its centre at 0.362."""

TABLE_EDGE = -0.18
_CLOSING_STEPS = 9
_OPENING_STEPS = 5
_FRONT_Y, _FRONT_Z = -0.09, 0.6
_CABINET_TURN = 0.15
_NEAR_SIDE, _BEFORE_MIDDLE = 0.01, 0.012
"""In the cabinet: radians of the hand's turn; metres off a half's middle, beyond which the side is
near; metres from a block's middle to the grip."""
_CLEAR = 0.004
_OVERHANG = 0.012
"""Metres an upper block may stand off the lower one's middle, to clear the door."""
_WRIST = (-0.4, 3.5)
"""Yaws within the wrist's reach everywhere over the table."""


def grip_yaw(block: BlockView, towards: float = ACROSS) -> float:
    """The yaw for the fingers to close on the block's width, nearest to ``towards``."""
    turn = np.pi / 2 if block.is_cube else np.pi
    return float(block.yaw + turn * np.round((towards - block.yaw) / turn))


def grip(scene: Scene, colour: str, yaw: float | None = None) -> Plan:
    """Come from above, open, and close the fingers on a block."""
    block = scene.view.block(colour)
    x, y, z = (float(value) for value in block.position)
    yaw = grip_yaw(block) if yaw is None else yaw
    if surface_of(block) == "slider":
        yield from _to_front_of_cabinet(scene, x, OPEN)
        y, yaw = _within_cabinet(scene, x, y, yaw)
    euler = (DOWN, 0.0, yaw)
    z += GRIP_HEIGHT + scene.vary(-0.003, 0.004)
    yield Move((x, y, z + scene.vary(0.09, 0.13)), euler, OPEN, radius=0.012)
    yield Move((x, y, z), euler, OPEN, speed=0.36, radius=0.004)
    yield Move((x, y, z), euler, CLOSED, wait=_CLOSING_STEPS, radius=0.005)


def _within_cabinet(scene: Scene, x: float, y: float, yaw: float) -> tuple[float, float]:
    """Where along y to grip a block in the cabinet, and a yaw for which the hand has room.

    The fingers straighten the block as they close.
    """
    layout = scene.view.layout
    # Turned further, the hand hits the door; near the cabinet's side, the side.
    least = ACROSS if x < layout.slot("left")[0] - _NEAR_SIDE else ACROSS - _CABINET_TURN
    most = ACROSS if x > layout.slot("right")[0] + _NEAR_SIDE else ACROSS + _CABINET_TURN
    # In the right half the hand hits the back before its fingers are around a block far in.
    if layout.half_of(x) == "right":
        y -= _BEFORE_MIDDLE
    return y, float(np.clip(yaw, least, most))


def _to_front_of_cabinet(scene: Scene, x: float, gripper: float) -> Plan:
    """Pass before the door's handle, not through it."""
    yield Move((x, _FRONT_Y, _FRONT_Z + scene.vary(0.0, 0.02)), None, gripper, radius=0.04)


def rise(scene: Scene, height: float, gripper: float = CLOSED) -> Plan:
    """Go straight up."""
    x, y, z = scene.hand.position.tolist()
    yield Move((x, y, z + height), None, gripper, speed=0.36, radius=0.012)


def _lift(colour: str) -> Planner:
    def plan(scene: Scene) -> Plan:
        """Grip the block and raise it, out of the cabinet or the drawer if it lies there."""
        yield from grip(scene, colour)
        yield from rise(scene, scene.vary(0.09, 0.14))
        x, y, z = scene.hand.position.tolist()
        if y > 0.03:  # from within the cabinet, on to where there is room
            yield Move((x, y - 0.08, z + 0.02), None, CLOSED, radius=0.02)

    return plan


def held_colour(view: View) -> str | None:
    """The colour of the block between the fingers."""
    if view.robot_obs[14] > 0 or view.gripper_width < 0.02:
        return None
    gaps = {colour: np.linalg.norm(view.block(colour).position - view.tcp) for colour in COLOURS}
    nearest = min(gaps, key=lambda colour: gaps[colour])
    return nearest if gaps[nearest] < 0.04 else None


def _put_down(scene: Scene, place: Vector, yaw: float | None = None, above: float = 0.12) -> Plan:
    """Carry the held block to a place for its centre, let go, and withdraw upwards."""
    colour = held_colour(scene.view)
    centre = scene.view.tcp if colour is None else scene.view.block(colour).position
    # The block may sit off the fingers' middle: its own centre must come to the place.
    x, y, z = (np.asarray(place) + (scene.view.tcp - centre)).tolist()
    euler = (DOWN, 0.0, float(np.clip(scene.hand.euler[2] if yaw is None else yaw, *_WRIST)))
    # Travel high: a held block would sweep others away.
    top = max(z + above, float(scene.hand.position[2]))
    yield Move((x, y, top), euler, CLOSED, radius=0.012)
    yield Move((x, y, z), euler, CLOSED, speed=0.3, radius=0.004)
    yield Move((x, y, z), euler, OPEN, wait=_OPENING_STEPS, radius=0.006)
    yield Move((x, y, z + above), None, OPEN, speed=0.33, radius=0.02)


def place_in_drawer(scene: Scene) -> Plan:
    """Put the held block into the open drawer, at a free spot."""
    view = scene.view
    x0 = float(view.layout.drawer[0])
    y0 = TABLE_EDGE - view.state.drawer / 2 + 0.015
    spots = [(x0 + scene.vary(-0.09, 0.09), y0 + scene.vary(-0.03, 0.03)) for _ in range(20)]
    x, y = _roomiest(view, spots, "drawer")
    yield from _put_down(scene, (x, y, DRAWER_FLOOR + BLOCK_WIDTH / 2 + scene.vary(0.012, 0.03)))


def place_in_slider(scene: Scene) -> Plan:
    """Put the held block into the half of the cabinet left open by the door."""
    view = scene.view
    middle = view.layout.open_slot(view.state.slider)
    spots = [(float(middle[0]) + scene.vary(-0.06, 0.06), float(middle[1])) for _ in range(20)]
    x, y = _roomiest(view, spots, "slider")
    z = float(middle[2]) + scene.vary(0.004, 0.012)
    yield from _to_front_of_cabinet(scene, x, CLOSED)
    yield from _put_down(scene, (x, y + scene.vary(0.0, 0.008), z), ACROSS)
    x, y, z = scene.hand.position.tolist()
    yield Move((x, y - 0.08, z + 0.01), None, OPEN, radius=0.03)


def place_on_table(scene: Scene) -> Plan:
    """Put the held block down on the table, at a free spot."""
    low, high = scene.view.layout.surfaces["table"]
    spots = [(scene.vary(low[0], high[0]), scene.vary(low[1], high[1])) for _ in range(40)]
    here = scene.view.tcp
    near = sorted(spots, key=lambda spot: float(np.hypot(*(np.array(spot) - here[:2]))))
    x, y = _roomiest(scene.view, near[:25], "table")
    yield from _put_down(scene, (x, y, TABLE_HEIGHT + BLOCK_WIDTH / 2 + 0.004), ACROSS)


def _roomiest(
    view: View, spots: Iterable[tuple[float, float]], surface: str
) -> tuple[float, float]:
    """The first spot with a hand's room to the other blocks, or the one with the most."""
    held = held_colour(view)
    others = [view.block(colour) for colour in COLOURS if colour != held]
    others = [block for block in others if surface_of(block) == surface]

    def room(spot: tuple[float, float]) -> float:
        gaps = [np.hypot(*(block.position[:2] - spot)) for block in others]
        return min(0.12, *gaps) if gaps else 0.12

    return max(spots, key=room)


def surface_of(block: BlockView) -> str:
    """The surface below a block: ``"table"``, ``"slider"`` or ``"drawer"``."""
    if block.position[2] < TABLE_HEIGHT - 0.02:
        return "drawer"
    return "slider" if block.position[1] > 0.03 else "table"


def _rotate(colour: str, sign: int) -> Planner:
    def plan(scene: Scene) -> Plan:
        """Grip the block, turn it in place, let go; +1 turns counterclockwise."""
        block = scene.view.block(colour)
        angle = sign * scene.vary(1.3, 1.6)
        first = grip_yaw(block, towards=ACROSS - angle / 2)
        yield from grip(scene, colour, first)
        x, y, z = scene.hand.position.tolist()
        up = z + scene.vary(0.004, 0.01)
        yield Move((x, y, up), None, CLOSED, radius=0.004)
        euler = (DOWN, 0.0, first + angle)
        yield Move((x, y, up), euler, CLOSED, radius=0.004)
        yield Move((x, y, z), euler, CLOSED, radius=0.004)
        yield Move((x, y, z), euler, OPEN, wait=_OPENING_STEPS)
        yield from rise(scene, scene.vary(0.08, 0.12), OPEN)

    return plan


def stack_block(scene: Scene) -> Plan:
    """Put the held block on top of a free one."""
    view = scene.view
    held = held_colour(view)
    below = [
        colour for colour in COLOURS if colour != held and surface_of(view.block(colour)) == "table"
    ]
    if not below:  # a driver may have pushed all others away
        return
    gaps = {c: float(np.linalg.norm(view.block(c).position - view.tcp)) for c in below}
    lower = view.block(min(gaps, key=lambda colour: gaps[colour]))
    x, y, z = (float(value) for value in lower.position)
    yaw = grip_yaw(lower, towards=float(scene.hand.euler[2]))
    if held is not None:
        block = view.block(held)
        along_x, along_y = half_extents(block.half_length, block.yaw + yaw - scene.hand.euler[2])
        before_door = view.door_front(x, along_x) - along_y - _CLEAR
        y = float(np.clip(before_door, y - _OVERHANG, y))
    yield from _put_down(scene, (x, y, z + BLOCK_WIDTH + 0.003), yaw)


def unstack_block(scene: Scene) -> Plan:
    """Take the upper block off and put it on the table."""
    yield from grip(scene, scene.view.highest())
    yield from rise(scene, scene.vary(0.07, 0.1))
    yield from place_on_table(scene)


PLANNERS: dict[str, Planner] = {
    **{
        task.name: _rotate(task.colour, 1 if task.side == "left" else -1)
        for task in ALL_TASKS
        if task.verb == "rotate"  # to the right is clockwise seen from above
    },
    **{task.name: _lift(task.colour) for task in ALL_TASKS if task.verb == "lift"},
    "place_in_slider": place_in_slider,
    "place_in_drawer": place_in_drawer,
    "stack_block": stack_block,
    "unstack_block": unstack_block,
}
