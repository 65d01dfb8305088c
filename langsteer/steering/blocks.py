"""The block a task is about: its place, and its turn against a demonstrated one.

A cloud without colours cannot tell red from blue. So the place of a block comes from the simulator,
and the steering must be allowed to read it (``steering.privileged=true``).

Example::

    scene = KnownScene(env.scene_obs, env.block_names)
    place = block_place("lift_red_block_table", scene)      # (4,) or None
    yaw_turn(demonstrated[YAW], place[YAW])
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.task import COLOURS
from langsteer.errors import UserError

YAW = 3
_FIRST_BLOCK, _BLOCK_SIZE = 6, 6
_YAW_IN_POSE = 5


def colour_of(task: str) -> str | None:
    """The colour in a task's name, or None."""
    return next((colour for colour in COLOURS if f"_{colour}_" in task), None)


@dataclass(frozen=True)
class KnownScene:
    """What a privileged steering reads from the simulator.

    Attributes:
        scene_obs: (24,) now.
        block_names: of its blocks in their order, `CalvinEnv.block_names`.
    """

    scene_obs: NDArray[np.floating]
    block_names: tuple[str, ...]

    def place(self, name: str) -> NDArray[np.float64]:
        """(4,) float64: xyz in metres and yaw in radians of a block."""
        first = _FIRST_BLOCK + _BLOCK_SIZE * self.block_names.index(name)
        pose = np.asarray(self.scene_obs[first : first + _BLOCK_SIZE], dtype=np.float64)
        return np.array([*pose[:3], pose[_YAW_IN_POSE]])


def block_place(task: str, scene: KnownScene | None) -> NDArray[np.float64] | None:
    """The place of the block a task is about.

    The name tells the block. Otherwise: stacking is about the block nearest below the held one;
    unstacking, about the highest; pushing into the drawer, about the one nearest to the table's
    edge.

    Args:
        task: one of CALVIN's.
        scene: None if it may not be read.

    Returns:
        (4,) float64: xyz in metres and yaw in radians; None if the task needs no block's place.

    Raises:
        UserError: the task is about a block, and the scene may not be read.
    """
    colour = colour_of(task)
    if colour is None and task not in _CHOICES:
        return None
    if scene is None:
        which = "a" if colour is None else f"the {colour}"
        raise UserError(
            f"steering towards {task} needs the place of {which} block, which a cloud without "
            "colours cannot tell; set steering.privileged=true to read it from the simulator "
            "(results keep that)"
        )
    if colour is not None:
        return scene.place(f"block_{colour}")
    return _CHOICES[task]([scene.place(name) for name in scene.block_names])


Places = list[NDArray[np.float64]]


def _highest(places: Places) -> NDArray[np.float64]:
    return max(places, key=lambda place: float(place[2]))


def _stacked_upon(places: Places) -> NDArray[np.float64]:
    held = _highest(places)
    others = [place for place in places if place is not held]
    return min(others, key=lambda place: float(np.linalg.norm(place[:2] - held[:2])))


def _nearest_to_edge(places: Places) -> NDArray[np.float64]:
    return min(places, key=lambda place: float(place[1]))


_CHOICES: dict[str, Callable[[Places], NDArray[np.float64]]] = {
    "stack_block": _stacked_upon,
    "unstack_block": _highest,
    "push_into_drawer": _nearest_to_edge,
}


def yaw_turn(before: float, after: float) -> float:
    """The smallest turn between two yaws of a block, in [-pi/2, pi/2): half a turn looks alike."""
    return (after - before + math.pi / 2) % math.pi - math.pi / 2
