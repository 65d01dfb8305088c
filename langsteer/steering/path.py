"""The commanded path of relative actions, in metres: guidance measures it.

CALVIN's controller adds each relative action to a target pose and never looks back at the arm. So
the commanded path after actions a_0 ... a_k from the commanded pose c is

    p_k = c_xyz + 0.02 m sum(a_0..a_k)[:3],    e_k = c_euler + 0.05 rad sum(a_0..a_k)[3:6],    g_k

(calvin_env, ``robot.py``: max_rel_pos, max_rel_orn; Euler angles are added as they are). Poses here
are (..., 7): xyz in metres, Euler angles in radians, gripper command within [-1, 1].

Example::

    hand = CommandedPose(env.commanded_pose)
    path = commanded_path(hand.pose, actions)       # (S, K, 7) of actions (S, K, 7)
    hand.advance(executed)                          # (n, 7) actions that were executed
"""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT

POSE_DIM = 7
POSITION, EULER, GRIPPER = slice(0, 3), slice(3, 6), 6
YAW = 5

METRES_PER_RADIAN = 0.1
"""A turn by a radian counts like 0.1 m, about the way of the fingertips."""
METRES_PER_GRIPPER = 0.02
"""A change of the gripper's command by 1 counts like 0.02 m."""

_UNITS = (*[METRES_PER_UNIT] * 3, *[RADIANS_PER_UNIT] * 3)
METRIC = (1.0, 1.0, 1.0, *[METRES_PER_RADIAN] * 3, METRES_PER_GRIPPER)
"""Factors (7,) from a difference of poses to metres."""


@cache
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` (n,) on a device, uploaded once. Do not change the result."""
    return torch.tensor(values, dtype=dtype, device=device)


def commanded_path(pose: Tensor, actions: Tensor) -> Tensor:
    """Poses after each action.

    Args:
        pose: (6,) commanded pose before the first action, metres and radians.
        actions: (..., K, 7) in units of ``rel_actions``.

    Returns:
        (..., K, 7), differentiable in ``actions``.
    """
    units = constant(_UNITS, actions.dtype, actions.device)
    moved = pose + (actions[..., :GRIPPER] * units).cumsum(dim=-2)
    return torch.cat([moved, actions[..., GRIPPER:]], dim=-1)


def path_curvature(steps: int) -> float:
    """The largest eigenvalue of J^T J; J (lower triangle of ones) sums up ``steps`` actions.

    In closed form: 1 / (4 sin^2(pi / (4 K + 2))).
    """
    return 1 / (4 * math.sin(math.pi / (4 * steps + 2)) ** 2)


class CommandedPose:
    """The controller's target pose, summed up from executed actions without the simulator.

    Attributes:
        pose: (6,) float64, metres and radians; Euler angles are not wrapped.
    """

    def __init__(self, pose: NDArray[np.floating]) -> None:
        """Begin at pose (6,); the next action is added to it."""
        self.pose: NDArray[np.float64] = np.array(pose, dtype=np.float64)

    def advance(self, actions: NDArray[np.floating]) -> None:
        """Add executed actions (n, 7)."""
        self.pose = self.pose + (np.asarray(actions)[:, :GRIPPER] * _UNITS).sum(axis=0)

    def unwrapped(self, euler: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Angles (K, 3), moved by the whole turns that bring ``at`` (3,) nearest to the pose's."""
        turns = np.round((self.pose[EULER] - at) / (2 * np.pi))
        return euler + 2 * np.pi * turns
