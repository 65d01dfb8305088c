"""Forward kinematics of CALVIN's Panda: joint angles to the TCP and to the gripper camera.

The chain is that of ``panda_longer_finger.urdf``. CALVIN's images were rendered from the recorded
joints. So for a dataset's files the camera pose from the joints ``robot_obs[7:14]`` is exact. The
one from the TCP pose ``robot_obs[:6]`` is older by one physics step (about 1 mm). A live simulator
is the other way round: use `camera_pose_from_tcp` there.

Example::

    world_from_optical = gripper_camera_pose(robot_obs[7:14])
"""

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import T_TCP_OPTICAL, Pose, Vector, pose_from_euler

BASE_POSITION: Vector = (-0.34, -0.46, 0.24)
"""The robot's base in the world, metres; its orientation is that of the world."""

JOINTS = slice(7, 14)
"""The seven arm joints, radians, in ``robot_obs``."""
GRIPPER_WIDTH = 6
"""Index in ``robot_obs`` of the metres between the fingers, 0 to 0.08."""

_QUARTER_TURN = np.pi / 2
# Position and extrinsic XYZ angles of each joint's frame in its parent's, before its own rotation.
_JOINT_FRAMES: tuple[tuple[Vector, Vector], ...] = (
    ((0.0, 0.0, 0.333), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (-_QUARTER_TURN, 0.0, 0.0)),
    ((0.0, -0.316, 0.0), (_QUARTER_TURN, 0.0, 0.0)),
    ((0.0825, 0.0, 0.0), (_QUARTER_TURN, 0.0, 0.0)),
    ((-0.0825, 0.384, 0.0), (-_QUARTER_TURN, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (_QUARTER_TURN, 0.0, 0.0)),
    ((0.088, 0.0, 0.0), (_QUARTER_TURN, 0.0, 0.0)),
)
_PARENT_FROM_JOINT = tuple(pose_from_euler(*frame) for frame in _JOINT_FRAMES)
# Last joint to flange (0.107 m), flange to hand (-45 degrees), hand to TCP (0.14 m).
_LAST_FROM_TCP = (
    pose_from_euler((0.0, 0.0, 0.107), (0.0, 0.0, 0.0))
    @ pose_from_euler((0.0, 0.0, 0.0), (0.0, 0.0, -np.pi / 4))
    @ pose_from_euler((0.0, 0.0, 0.14), (0.0, 0.0, 0.0))
)


def tcp_pose(joints: NDArray[np.float64], base_position: Vector = BASE_POSITION) -> Pose:
    """Pose (..., 4, 4) of the TCP in the world from arm joints (..., 7) in radians."""
    pose: Pose = np.broadcast_to(np.eye(4), (*joints.shape[:-1], 4, 4)).copy()
    pose[..., :3, 3] = base_position
    for index, parent_from_joint in enumerate(_PARENT_FROM_JOINT):
        pose = np.matmul(pose, parent_from_joint @ _rotation_about_z(joints[..., index]))
    return np.matmul(pose, _LAST_FROM_TCP)


def gripper_camera_pose(joints: NDArray[np.float64], base_position: Vector = BASE_POSITION) -> Pose:
    """Pose (..., 4, 4) of the gripper camera's optical frame from arm joints (..., 7)."""
    return tcp_pose(joints, base_position) @ T_TCP_OPTICAL


def camera_pose_from_tcp(robot_obs: NDArray[np.floating]) -> Pose:
    """Pose (..., 4, 4) of the gripper camera from the TCP pose in ``robot_obs`` (..., 15)."""
    return pose_from_euler(robot_obs[..., :3], robot_obs[..., 3:6]) @ T_TCP_OPTICAL


def _rotation_about_z(angle: NDArray[np.float64]) -> Pose:
    """Poses (..., 4, 4) of a turn about z by ``angle`` (...) radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    pose = np.zeros((*np.shape(angle), 4, 4))
    pose[..., 0, 0], pose[..., 0, 1] = cos, -sin
    pose[..., 1, 0], pose[..., 1, 1] = sin, cos
    pose[..., 2, 2] = pose[..., 3, 3] = 1.0
    return pose
