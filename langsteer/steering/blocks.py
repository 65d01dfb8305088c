"""The block that a task is about: where it lies, and how far one lies from another.

A cloud without colours cannot tell red from blue, so the place of a block comes from the simulator,
which a steering must be allowed to read (``steering.privileged=true``).

Example::

    place = block_place("lift_red_block_table", scene_obs)      # (4,) or None
    yaw_gap(place[YAW], demonstrated[YAW])
"""

import math

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.tasks import COLOURS
from langsteer.errors import UserError

YAW = 3
_FIRST_BLOCK, _BLOCK_SIZE = 6, 6
_YAW_IN_POSE = 5


def colour_of(task: str) -> str | None:
    """The colour of the block that a task names, or None where it names none."""
    return next((colour for colour in COLOURS if f"_{colour}_" in task), None)


def block_place(task: str, scene_obs: NDArray[np.floating] | None) -> NDArray[np.float64] | None:
    """Where the block lies that a task names.

    Args:
        task: one of CALVIN's.
        scene_obs: (24,), blocks in CALVIN's order from the seventh value on; None where it may not
            be read.

    Returns:
        (4,) float64: xyz in metres and yaw in radians; None for a task that names no block.

    Raises:
        UserError: the task names a block, and the scene may not be read.
    """
    colour = colour_of(task)
    if colour is None:
        return None
    if scene_obs is None:
        raise UserError(
            f"steering towards {task} needs the place of the {colour} block, which a cloud without "
            "colours cannot tell; set steering.privileged=true to read it from the simulator "
            "(results keep that)"
        )
    first = _FIRST_BLOCK + _BLOCK_SIZE * COLOURS.index(colour)
    pose = np.asarray(scene_obs[first : first + _BLOCK_SIZE], dtype=np.float64)
    return np.array([*pose[:3], pose[_YAW_IN_POSE]])


def yaw_gap(one: float, other: float) -> float:
    """Radians within [0, pi/2] between two yaws of a block, which looks the same half turned."""
    return abs((one - other + math.pi / 2) % math.pi - math.pi / 2)
