"""The Franka arm of CALVIN: relative actions, inverse kinematics, gripper, proprioception.

Every constant is CALVIN's (``robot.py``, ``mixed_ik.py`` and ``panda_longer_finger.yaml`` of
mees/calvin_env). Calls to PyBullet come in its order, so states agree to the bit.
"""

from pathlib import Path

import numpy as np

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.calvin.kinematics import GRIPPER_WIDTH, JOINTS
from langsteer.envs.actions import Command, JointCommand, PoseCommand
from langsteer.envs.physics import POSITION_CONTROL, Physics, link_ids, pybullet

ARM_JOINTS = tuple(range(7))
FINGER_JOINTS = (9, 11)
LOWER_LIMITS = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER_LIMITS = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
FINGER_OPEN, FINGER_CLOSED = 0.04, 0.0

ARM_FORCE = 200.0
ARM_VELOCITY = 2.0
FINGER_FORCE = 200.0
FINGER_OPENING_FORCE = FINGER_FORCE / 100
FINGER_VELOCITY = 1.0

# Nullspace limits beyond all motion, for the seven joints and two fingers.
_IK_LIMIT = 7.0
_N_DOFS = 9

ROBOT_OBS_SIZE = 15
GRIPPER_ACTION_INDEX = 14


class Robot:
    """The arm in one physics world.

    Attributes:
        body: PyBullet's body id.
        links: names of links to link indices.
        target_position: (3,) metres; the tcp's target after the relative actions so far.
        target_euler: (3,) radians, extrinsic XYZ.
        gripper_action: the last command, +1 open or −1 close.
    """

    def __init__(
        self,
        physics: Physics,
        urdf: Path,
        base_position: tuple[float, ...],
        base_euler: tuple[float, ...],
        initial_joints: tuple[float, ...],
    ) -> None:
        self._physics = physics
        self._initial_joints = np.array(initial_joints)
        self.body = physics.loadURDF(
            str(urdf),
            basePosition=base_position,
            baseOrientation=pybullet.getQuaternionFromEuler(base_euler),
            useFixedBase=True,
        )
        self._add_pedestal(np.array(base_position), base_euler[2])
        self._keep_fingers_centred()
        self.links = link_ids(physics, self.body)
        self._tcp = self.links["tcp"]
        self._camera = self.links["gripper_cam"]
        self._rest_pose = [*initial_joints, FINGER_OPEN, FINGER_OPEN]
        self.gripper_action = 1.0
        self.target_position: np.ndarray = np.zeros(3)
        self.target_euler = np.zeros(3)
        self.reset(None)

    def _add_pedestal(self, base_position: np.ndarray, yaw: float) -> None:
        """The white cylinder under the arm; it is drawn and collides with nothing."""
        height = base_position[2]
        centre = base_position - [np.cos(yaw) * 0.05, np.sin(yaw) * 0.05, height / 2]
        shape = self._physics.createVisualShape(
            shapeType=pybullet.GEOM_CYLINDER,
            rgbaColor=[1, 1, 1, 1],
            radius=0.13,
            length=height,
            visualFramePosition=centre.tolist(),
        )
        self.pedestal = self._physics.createMultiBody(baseVisualShapeIndex=shape)

    def _keep_fingers_centred(self) -> None:
        gear = self._physics.createConstraint(
            self.body,
            FINGER_JOINTS[0],
            self.body,
            FINGER_JOINTS[1],
            jointType=pybullet.JOINT_GEAR,
            jointAxis=[1, 0, 0],
            parentFramePosition=[0, 0, 0],
            childFramePosition=[0, 0, 0],
        )
        self._physics.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50)

    def reset(self, robot_obs: np.ndarray | None) -> None:
        """Put the joints as in ``robot_obs`` (15,), or at the scene's start, at rest.

        As in CALVIN, the tcp pose in ``robot_obs`` is not read: the joints give it. The fingers
        hold their width until the first action. The observed gripper command is the one in
        ``robot_obs`` (CALVIN keeps the last episode's).
        """
        joints = self._initial_joints if robot_obs is None else robot_obs[JOINTS]
        finger = FINGER_OPEN if robot_obs is None else robot_obs[GRIPPER_WIDTH] / 2
        for joint, angle in zip(ARM_JOINTS, joints, strict=True):
            self._physics.resetJointState(self.body, joint, angle)
            self._drive(joint, angle, ARM_FORCE, ARM_VELOCITY)
        for joint in FINGER_JOINTS:
            self._physics.resetJointState(self.body, joint, finger)
            self._drive(joint, finger, FINGER_FORCE, FINGER_VELOCITY)
        closed = robot_obs is not None and robot_obs[GRIPPER_ACTION_INDEX] <= 0
        self.gripper_action = -1.0 if closed else 1.0
        position, quaternion = self.link_pose(self._tcp)
        # Relative actions add to the target from here on, as after CALVIN's reset.
        self.target_position = np.array(position)
        self.target_euler = np.array(pybullet.getEulerFromQuaternion(quaternion))

    def apply(self, action: np.ndarray | Command) -> None:
        """Command the motors with a checked relative action, (7,) float64, or an absolute one.

        A relative action moves the target pose, whatever the arm has reached: CALVIN integrates
        relative actions open loop and adds Euler angles as they are.
        """
        if isinstance(action, PoseCommand):
            joints = self._inverse_kinematics(action.position, action.quaternion)
            self._command(joints, action.gripper)
        elif isinstance(action, JointCommand):
            self._command(action.joints, action.gripper)
        else:
            # The target moves on even if the arm lags behind: CALVIN never reads it back.
            self.target_position += action[:3] * METRES_PER_UNIT
            self.target_euler += action[3:6] * RADIANS_PER_UNIT
            quaternion = pybullet.getQuaternionFromEuler(self.target_euler)
            self._command(self._inverse_kinematics(self.target_position, quaternion), action[6])

    def _command(self, joints: np.ndarray, gripper: float) -> None:
        self.gripper_action = float(gripper)
        for joint, angle in zip(ARM_JOINTS, joints, strict=True):
            self._drive(joint, angle, ARM_FORCE, ARM_VELOCITY)
        opens = self.gripper_action > 0
        for joint in FINGER_JOINTS:
            self._drive(
                joint,
                FINGER_OPEN if opens else FINGER_CLOSED,
                FINGER_OPENING_FORCE if opens else FINGER_FORCE,
                FINGER_VELOCITY,
            )

    def joint_angles(self) -> np.ndarray:
        """The present angles of the arm's seven joints, (7,) float64 radians."""
        return np.array([s[0] for s in self._physics.getJointStates(self.body, ARM_JOINTS)])

    def _inverse_kinematics(
        self, position: np.ndarray, quaternion: np.ndarray | tuple[float, ...]
    ) -> np.ndarray:
        solution = self._physics.calculateInverseKinematics(
            self.body,
            self._tcp,
            position,
            quaternion,
            [-_IK_LIMIT] * _N_DOFS,
            [_IK_LIMIT] * _N_DOFS,
            [_IK_LIMIT] * _N_DOFS,
            self._rest_pose,
        )
        return np.clip(solution[: len(ARM_JOINTS)], LOWER_LIMITS, UPPER_LIMITS)

    def _drive(self, joint: int, target: float, force: float, velocity: float) -> None:
        self._physics.setJointMotorControl2(
            bodyIndex=self.body,
            jointIndex=joint,
            controlMode=POSITION_CONTROL,
            targetPosition=target,
            force=force,
            maxVelocity=velocity,
        )

    def link_pose(self, link: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Position and quaternion (x, y, z, w) of a link, as PyBullet last left it.

        PyBullet moves links one substep later than joints; CALVIN reads them like that.
        """
        position, quaternion = self._physics.getLinkState(self.body, link)[:2]
        return position, quaternion

    def camera_pose(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Position and quaternion of the gripper camera's link."""
        return self.link_pose(self._camera)

    def observe(self) -> np.ndarray:
        """CALVIN's ``robot_obs`` (15,) float64.

        tcp xyz and Euler angles (6), gripper width in metres, 7 joint angles, gripper command.
        """
        position, quaternion = self.link_pose(self._tcp)
        joints = self.joint_angles()
        left, right = (state[0] for state in self._physics.getJointStates(self.body, FINGER_JOINTS))
        euler = pybullet.getEulerFromQuaternion(quaternion)
        return np.array([*position, *euler, left + right, *joints, self.gripper_action])
