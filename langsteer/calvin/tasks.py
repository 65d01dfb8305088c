"""What success means at each of the 34 tasks of CALVIN: the task oracle.

A task is a change between two snapshots of the scene: one at the moment the task was given, and one
now. A snapshot (`SceneInfo`) holds joint values, lights, blocks and contacts. The simulator makes
it, and the oracle needs nothing else.

Rules and thresholds are those of CALVIN's own oracle (``envs/tasks.py`` and
``new_playtable_tasks.yaml`` of mees/calvin_env), so success rates can be compared.

Example::

    start = env.info()
    env.step(action)
    if achieved(start, env.info(), "open_drawer"):
        ...
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from langsteer.calvin.task import ALL_TASKS, TASKS, Task, checked_task

ROBOT = "robot"
TABLE = "table"
TABLE_TOP = "base_link"
SLIDER_PLANK = "plank_link"
DRAWER = "drawer_link"

Contact = tuple[str, str]
"""(body name, link name) of a thing touched, e.g. ``("table", "drawer_link")``."""


@dataclass(frozen=True)
class BlockInfo:
    """One block at one moment; metres, seconds, world frame.

    Attributes:
        position: (3,) centre of the block.
        quaternion: (4,) orientation as x, y, z, w.
        linear_velocity: (3,) m/s.
        angular_velocity: (3,) rad/s.
        contacts: all things the block touches, the robot included.
    """

    position: tuple[float, ...]
    quaternion: tuple[float, ...]
    linear_velocity: tuple[float, ...]
    angular_velocity: tuple[float, ...]
    contacts: frozenset[Contact]

    @property
    def touched_bodies(self) -> frozenset[str]:
        """Names of the bodies the block touches."""
        return frozenset(body for body, _ in self.contacts)


@dataclass(frozen=True)
class SceneInfo:
    """The scene at one moment, as far as the oracle needs it.

    Attributes:
        slider: joint value of the sliding door in metres, growing to the left in scene D.
        drawer: joint value of the drawer in metres, 0 when closed.
        button: joint value of the LED's button in metres, 0 when released.
        switch: joint value of the light bulb's switch in metres, 0 when off.
        lightbulb: whether the bulb is lit.
        led: whether the LED is lit.
        blocks: ``"block_red"``, ``"block_blue"`` and ``"block_pink"``; contacts use the same names,
            and ``"robot"``, ``"table"`` with the link names of its URDF, or any name for the rest.
        robot_contacts: all things the robot touches.
    """

    slider: float
    drawer: float
    button: float
    switch: float
    lightbulb: bool
    led: bool
    blocks: Mapping[str, BlockInfo]
    robot_contacts: frozenset[Contact]


Predicate = Callable[[SceneInfo, SceneInfo], bool]

ROTATION_DEGREES = 60.0
ROTATION_TILT_DEGREES = 30.0
ROTATION_TRAVEL = 0.1
PUSH_DISTANCE = 0.1
SLIDER_TRAVEL = 0.15
DRAWER_TRAVEL = 0.12
LIFT_HEIGHTS = {"table": 0.05, "slider": 0.03, "drawer": 0.05}
RESTING_SPEED = 1.0

SURFACE_LINKS = {"table": TABLE_TOP, "slider": SLIDER_PLANK, "drawer": DRAWER}


def rotation_angles(start: BlockInfo, end: BlockInfo) -> tuple[float, float, float]:
    """The turn from ``start`` to ``end`` as extrinsic x, y, z Euler angles in degrees."""
    turn = _rotation_matrix(end.quaternion) @ _rotation_matrix(start.quaternion).T
    x = np.arctan2(turn[2, 1], turn[2, 2])
    y = np.arcsin(np.clip(-turn[2, 0], -1.0, 1.0))
    z = np.arctan2(turn[1, 0], turn[0, 0])
    return float(np.degrees(x)), float(np.degrees(y)), float(np.degrees(z))


def _rotation_matrix(quaternion: tuple[float, ...]) -> np.ndarray:
    x, y, z, w = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _travel(start: BlockInfo, end: BlockInfo) -> np.ndarray:
    """How far the block went, (3,) metres."""
    return np.subtract(end.position, start.position)


def _rotated(block: str, sign: int, start: SceneInfo, end: SceneInfo) -> bool:
    before, after = start.blocks[block], end.blocks[block]
    moved_away = np.linalg.norm(_travel(before, after)) > ROTATION_TRAVEL
    if moved_away or not after.touched_bodies - {ROBOT}:
        return False
    x, y, z = rotation_angles(before, after)
    upright = abs(x) < ROTATION_TILT_DEGREES and abs(y) < ROTATION_TILT_DEGREES
    return upright and ROTATION_DEGREES < sign * z < 180.0


def _pushed(block: str, sign: int, start: SceneInfo, end: SceneInfo) -> bool:
    before, after = start.blocks[block], end.blocks[block]
    supports_before = {contact for contact in before.contacts if contact[0] != ROBOT}
    supports_after = {contact for contact in after.contacts if contact[0] != ROBOT}
    if not supports_before or not supports_before <= supports_after:
        return False
    return bool(sign * _travel(before, after)[0] > PUSH_DISTANCE)


def _slider_moved(sign: int, start: SceneInfo, end: SceneInfo) -> bool:
    return sign * (end.slider - start.slider) > SLIDER_TRAVEL


def _drawer_moved(sign: int, start: SceneInfo, end: SceneInfo) -> bool:
    return sign * (end.drawer - start.drawer) > DRAWER_TRAVEL


def _lifted(block: str, surface: str, start: SceneInfo, end: SceneInfo) -> bool:
    before, after = start.blocks[block], end.blocks[block]
    return bool(
        after.touched_bodies == {ROBOT}
        and (TABLE, SURFACE_LINKS[surface]) in before.contacts
        and _travel(before, after)[2] > LIFT_HEIGHTS[surface]
    )


def _placed(link: str, start: SceneInfo, end: SceneInfo) -> bool:
    """The block held at the start by the robot alone now lies on ``link``."""
    held = {body for body, _ in start.robot_contacts}
    if len(held) != 1:
        return False
    (block,) = held
    if block not in start.blocks or block in {body for body, _ in end.robot_contacts}:
        return False
    held_freely = start.blocks[block].touched_bodies == {ROBOT}
    return held_freely and (TABLE, link) in end.blocks[block].contacts


def _at_rest(block: BlockInfo) -> bool:
    speeds = (*block.linear_velocity, *block.angular_velocity)
    return all(abs(speed) < RESTING_SPEED for speed in speeds)


def _carried_by_blocks(block: BlockInfo, scene: SceneInfo) -> bool:
    """Whether the block touches other blocks, and nothing else."""
    return bool(block.touched_bodies) and block.touched_bodies <= scene.blocks.keys()


def _stacked(start: SceneInfo, end: SceneInfo) -> bool:
    return any(
        not before.touched_bodies & start.blocks.keys()
        and _carried_by_blocks(end.blocks[name], end)
        and _at_rest(end.blocks[name])
        for name, before in start.blocks.items()
    )


def _unstacked(start: SceneInfo, end: SceneInfo) -> bool:
    return any(
        _carried_by_blocks(before, start)
        and _at_rest(before)
        and not end.blocks[name].touched_bodies & end.blocks.keys()
        for name, before in start.blocks.items()
    )


def _light_switched(light: str, lit: bool, start: SceneInfo, end: SceneInfo) -> bool:
    return bool(getattr(start, light)) is not lit and bool(getattr(end, light)) is lit


def _pushed_into_drawer(start: SceneInfo, end: SceneInfo) -> bool:
    """A block touches the drawer, and touched nothing but the table top at the start.

    CALVIN's oracle is meant to demand too that the robot let go of it. But it compares a body with
    (body, link) pairs there, so it never looks. Ours must agree with it.
    """
    return any(
        before.contacts == {(TABLE, TABLE_TOP)} and (TABLE, DRAWER) in end.blocks[name].contacts
        for name, before in start.blocks.items()
    )


def _predicate(task: Task) -> Predicate:
    # A turn to the right is clockwise seen from above; a push to the right goes along +x.
    leftwards = 1 if task.side == "left" else -1
    match task.verb:
        case "rotate":
            return partial(_rotated, task.block, leftwards)
        case "push":
            return partial(_pushed, task.block, -leftwards)
        case "move":
            return partial(_slider_moved, leftwards)
        case "open" | "close":
            return partial(_drawer_moved, 1 if task.verb == "open" else -1)
        case "lift":
            return partial(_lifted, task.block, task.surface)
        case "place":
            return partial(_placed, SURFACE_LINKS[task.surface])
        case "turn_on" | "turn_off":
            return partial(_light_switched, task.about, task.verb == "turn_on")
        case "stack":
            return _stacked
        case "unstack":
            return _unstacked
        case "push_into":
            return _pushed_into_drawer
    raise AssertionError(f"no predicate for {task}")


_PREDICATES = dict(zip(TASKS, map(_predicate, ALL_TASKS), strict=True))


def achieved(start: SceneInfo, end: SceneInfo, task: str) -> bool:
    """Whether ``task`` was done between two snapshots.

    Raises:
        UserError: no task has this name.
    """
    return _PREDICATES[checked_task(task)](start, end)


def detect(start: SceneInfo, end: SceneInfo) -> set[str]:
    """The names of all tasks done between two snapshots."""
    return {task for task, predicate in _PREDICATES.items() if predicate(start, end)}
