"""calvin_env's forms of an action, turned into those of `langsteer.envs.actions`.

| form | meaning |
|---|---|
| (7,) | relative: units of 0.02 m and 0.05 rad, gripper |
| (position, orientation, gripper) | absolute: metres; Euler angles (3,) or quaternion (4,) xyzw |
| ``{"type": "cartesian_rel", "action": (7,)}`` | as (7,) |
| ``{"type": "cartesian_abs", "action": ...}`` | a triple as above, or (7,) or (8,) in one array |
| ``{"type": "joint_abs", "action": (8,)}`` | seven angles in radians, gripper |
| ``{"type": "joint_rel", "action": (8,)}`` | the same, added to the present angles |

The gripper must be +1 (open) or −1 (close), as in calvin_env.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.envs.actions import (
    ACTION_SIZE,
    Command,
    JointCommand,
    PoseCommand,
    checked_action,
    checked_vector,
)
from langsteer.envs.physics import pybullet
from langsteer.errors import UserError

N_JOINTS = 7
Vector = NDArray[np.float64]


def read_action(action: Any, joint_angles: Callable[[], Vector]) -> Vector | Command:  # noqa: ANN401 - many forms
    """The action in a form for `CalvinEnv.step`.

    Args:
        action: in one of the forms above.
        joint_angles: returns the present angles, for ``joint_rel``.

    Raises:
        UserError: another form, numbers that are not finite, or a gripper other than ±1.
    """
    kind: object = "cartesian_rel"
    if isinstance(action, dict):
        kind, action = action.get("type"), action.get("action")
    elif _is_triple(action):
        kind = "cartesian_abs"
    if kind == "cartesian_rel":
        return _relative(action)
    if kind == "cartesian_abs":
        return _absolute(action)
    if kind in ("joint_abs", "joint_rel"):
        values = checked_vector(action, N_JOINTS + 1, f"{kind} (seven angles, gripper)")
        start = joint_angles() if kind == "joint_rel" else np.zeros(N_JOINTS)
        return JointCommand(start + values[:N_JOINTS], _gripper(values[N_JOINTS]))
    raise UserError(
        f"action of type {kind!r}: expected cartesian_rel, cartesian_abs, joint_rel or joint_abs"
    )


def _is_triple(action: Any) -> bool:  # noqa: ANN401 - what a caller gave
    return isinstance(action, tuple | list) and len(action) == 3


def _relative(action: Any) -> Vector:  # noqa: ANN401 - what a caller gave
    checked = checked_vector(action, ACTION_SIZE, "relative action (3 + 3 numbers, gripper)")
    _gripper(checked[-1])
    return checked_action(checked)


def _absolute(action: Any) -> PoseCommand:  # noqa: ANN401 - what a caller gave
    if _is_triple(action):
        position, orientation, gripper = action
        gripper = np.ravel(gripper)
    else:
        values = np.asarray(action, dtype=np.float64)
        if values.shape not in ((7,), (8,)):
            raise UserError(
                f"absolute action: expected (position, orientation, gripper), (7,) or (8,), "
                f"found an array of shape {values.shape}"
            )
        position, orientation, gripper = np.split(values, [3, len(values) - 1])
    size = 4 if np.size(orientation) == 4 else 3
    turned = checked_vector(orientation, size, "orientation of an absolute action")
    quaternion = turned if size == 4 else np.array(pybullet.getQuaternionFromEuler(turned))
    place = checked_vector(position, 3, "position of an absolute action")
    return PoseCommand(place, quaternion, _gripper(checked_vector(gripper, 1, "gripper")[0]))


def _gripper(value: float) -> float:
    if value not in (-1.0, 1.0):
        raise UserError(
            f"gripper {value}: calvin_env takes 1 (open) or -1 (close) alone; make it binary "
            "first, e.g. 1 if g > 0 else -1"
        )
    return float(value)
