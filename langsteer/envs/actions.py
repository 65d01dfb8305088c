"""The forms of an action: the one place to check it and to make its gripper binary.

An action is CALVIN's relative action, (7,): dx, dy, dz in units of 0.02 m, then three Euler
increments in units of 0.05 rad, then the gripper. The first six are executed as they are, even
beyond ±1, as CALVIN does. CALVIN refuses a gripper other than ±1. Here everything above zero opens
(+1) and the rest closes (−1): the output of a policy is never exactly ±1.

CALVIN also takes absolute poses and joint angles. They are `PoseCommand` and `JointCommand`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langsteer.errors import UserError

ACTION_SIZE = 7
GRIPPER = 6


@dataclass(frozen=True)
class PoseCommand:
    """An absolute action: a pose for the tcp.

    As in CALVIN, it leaves alone the target of relative actions. A relative action after it goes on
    from the target of the relative ones before it.

    Attributes:
        position: (3,) metres, world frame.
        quaternion: (4,) x, y, z, w.
        gripper: +1 opens, −1 closes.
    """

    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]
    gripper: float


@dataclass(frozen=True)
class JointCommand:
    """Angles for the arm's joints, commanded as they are, without limits.

    Attributes:
        joints: (7,) radians.
        gripper: +1 opens, −1 closes.
    """

    joints: NDArray[np.float64]
    gripper: float


Command = PoseCommand | JointCommand


def checked_action(action: ArrayLike) -> NDArray[np.float64]:
    """A copy (7,) float64 of ``action`` with a gripper of +1 (open) or −1 (close).

    Raises:
        UserError: another shape, not numbers, or a number that is not finite.
    """
    checked = checked_vector(action, ACTION_SIZE, "action (dx, dy, dz, three angles, gripper)")
    checked[GRIPPER] = 1.0 if checked[GRIPPER] > 0 else -1.0
    return checked


def checked_vector(values: ArrayLike, size: int, what: str) -> NDArray[np.float64]:
    """A copy (size,) float64 of finite ``values``; ``what`` names them in the error.

    Raises:
        UserError: another shape, not numbers, or a number that is not finite.
    """
    try:
        vector = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {size} numbers expected, found {values!r}") from error
    if vector.shape != (size,):
        raise UserError(f"{what}: shape ({size},) expected, found {vector.shape}")
    if not np.isfinite(vector).all():
        raise UserError(f"{what}: finite numbers expected, found {vector.tolist()}")
    return vector
