"""CALVIN's play table: sliding door, drawer, button, switch, two lights and three blocks.

Forces, thresholds and the logic of the lights are CALVIN's (``calvin_env/scene``).
"""

from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from langsteer.calvin.scene_obs import SceneObs
from langsteer.envs.physics import (
    POSITION_CONTROL,
    VELOCITY_CONTROL,
    Physics,
    joint_ids,
    link_ids,
    pybullet,
)
from langsteer.envs.scene import BlockConfig, SceneConfig

LedReset = Literal["head", "pinned"]

FRICTION_FORCE = 4.0
BUTTON_FORCE = 4.0
LIGHT_OFF = (1.0, 1.0, 1.0, 1.0)

CALVIN_SEED = 0
MAX_PLACEMENTS = 1000
BLOCK_CLEARANCE = 0.002


class Light:
    """A link with a changing colour."""

    def __init__(self, physics: Physics, body: int, link: int, colour: tuple[float, ...]) -> None:
        self._physics, self._body, self._link, self._colour = physics, body, link, colour
        self.lit = False

    def set(self, lit: bool) -> None:
        """Turn the light on or off."""
        self.lit = lit
        self._physics.changeVisualShape(
            self._body, self._link, rgbaColor=self._colour if lit else LIGHT_OFF
        )


class Button:
    """Each press, a rise of the joint over mid-range, toggles the LED.

    Attributes:
        is_on: the state the next press toggles.
    """

    def __init__(self, threshold: float, light: Light, led_reset: LedReset) -> None:
        self._threshold, self._light, self._led_reset = threshold, light, led_reset
        self.is_on = False
        self._was_pressed = False

    def reset(self) -> None:
        """Take the LED as it was reset, or as off, like the version pinned by mees/calvin.

        The latter needs two presses to turn off an LED lit at the reset.
        """
        self.is_on = self._light.lit and self._led_reset == "head"
        self._was_pressed = False

    def step(self, joint: float) -> None:
        """React to the joint's value in metres."""
        pressed = joint > self._threshold
        # Only the press toggles, not the holding.
        if pressed and not self._was_pressed:
            self.is_on = not self.is_on
            self._light.set(self.is_on)
        self._was_pressed = pressed


class Switch:
    """The bulb is lit while the joint is over mid-range, once it has been there.

    Attributes:
        is_on: the lever's state at the last step.
    """

    def __init__(self, threshold: float, light: Light) -> None:
        self._threshold, self._light = threshold, light
        self.is_on = False

    def reset(self) -> None:
        """Forget the lever: a bulb reset against its lever stays until the lever is moved."""
        self.is_on = False

    def step(self, joint: float) -> None:
        """React to the joint's value in metres."""
        on = joint > self._threshold
        # Only a change of the lever acts: a light set by a reset stays until then.
        if on != self.is_on:
            self._light.set(on)
        self.is_on = on


class JointFrame(NamedTuple):
    """A joint's place in the world, with the joint at zero.

    Attributes:
        origin: (3,) metres.
        axis: (3,) unit vector.
        upper: the joint's largest value, metres.
    """

    origin: np.ndarray
    axis: np.ndarray
    upper: float


class PlayTable:
    """Table, blocks and floor in one physics world.

    Attributes:
        config: of the scene.
        frames: of the joints, by name.
        table: PyBullet's body id of the table.
        blocks: names of blocks to body ids, in the order of ``scene_obs``.
        button_logic: the button's effect on the LED.
        switch_logic: the switch's effect on the bulb.
    """

    def __init__(self, physics: Physics, config: SceneConfig, led_reset: LedReset) -> None:
        self._physics, self.config = physics, config
        # Later contacts depend on the order in which Bullet first met the bodies, and so on the
        # blocks' places at loading. These are CALVIN's, with its default seed.
        rng = np.random.default_rng(CALVIN_SEED)
        self.blocks = {block.name: self._load_block(block, rng) for block in config.blocks}
        self.table = physics.loadURDF(
            str(config.table_urdf),
            config.table_position,
            pybullet.getQuaternionFromEuler(config.table_euler),
            globalScaling=config.global_scaling,
        )
        joints, links = joint_ids(physics, self.table), link_ids(physics, self.table)
        # Read before anything moves: later the links lag behind their joints by a substep.
        self.frames = {name: self._frame(joint) for name, joint in joints.items()}
        self._slider, self._drawer = joints[config.slider_joint], joints[config.drawer_joint]
        self._button, self._switch = joints[config.button_joint], joints[config.switch_joint]
        self._joints = (self._slider, self._drawer, self._button, self._switch)
        self._set_up_motors()
        self.lightbulb = Light(
            physics, self.table, links[config.lightbulb.link], config.lightbulb.colour
        )
        self.led = Light(physics, self.table, links[config.led.link], config.led.colour)
        self.button_logic = Button(self._middle(self._button), self.led, led_reset)
        self.switch_logic = Switch(self._middle(self._switch), self.lightbulb)
        self.floor = physics.loadURDF(str(config.plane_urdf))

    def _load_block(self, block: BlockConfig, rng: np.random.Generator) -> int:
        pose = self.config.sample_block_pose(rng)
        return self._physics.loadURDF(
            str(block.urdf),
            pose[:3].tolist(),
            pybullet.getQuaternionFromEuler(pose[3:]),
            globalScaling=self.config.global_scaling,
        )

    def _frame(self, joint: int) -> JointFrame:
        described = self._physics.getJointInfo(self.table, joint)
        link = self._physics.getLinkState(self.table, joint)
        rotation = np.array(pybullet.getMatrixFromQuaternion(link[5])).reshape(3, 3)
        return JointFrame(np.array(link[4]), rotation @ np.array(described[13]), described[9])

    def _set_up_motors(self) -> None:
        for joint in (self._slider, self._drawer, self._switch):
            self._physics.setJointMotorControl2(
                self.table, joint, controlMode=VELOCITY_CONTROL, force=FRICTION_FORCE
            )
        self._physics.setJointMotorControl2(
            self.table,
            self._button,
            controlMode=POSITION_CONTROL,
            targetPosition=0.0,
            force=BUTTON_FORCE,
        )

    def _middle(self, joint: int) -> float:
        lower, upper = self._physics.getJointInfo(self.table, joint)[8:10]
        return (lower + upper) / 2

    def reset(self, scene_obs: np.ndarray) -> None:
        """Put joints, lights and blocks as in ``scene_obs`` (24,), at rest."""
        scene = SceneObs(scene_obs)
        for joint, value in zip(self._joints, scene.joints, strict=True):
            self._physics.resetJointState(self.table, joint, value)
        self.lightbulb.set(scene.lightbulb)
        self.led.set(scene.led)
        self.button_logic.reset()
        self.switch_logic.reset()
        self.place_blocks(scene.blocks)

    def place_blocks(self, poses: np.ndarray) -> None:
        """Put the blocks at ``poses`` (3, 6): metres and Euler angles, in the order of `blocks`."""
        for body, pose in zip(self.blocks.values(), poses, strict=True):
            quaternion = pybullet.getQuaternionFromEuler(pose[3:])
            self._physics.resetBasePositionAndOrientation(body, pose[:3], quaternion)

    def sample_block_poses(self, rng: np.random.Generator) -> np.ndarray:
        """Poses (3, 6) on random surfaces, no block near another; moves the blocks about.

        Raises:
            RuntimeError: no such poses were found; CALVIN's surfaces never cause it.
        """
        for _ in range(MAX_PLACEMENTS):
            poses = np.stack([self.config.sample_block_pose(rng) for _ in self.blocks])
            self.place_blocks(poses)
            if not any(self._are_near(*pair) for pair in combinations(self.blocks.values(), 2)):
                return poses
        raise RuntimeError(f"no room for the blocks found in {MAX_PLACEMENTS} tries")

    def _are_near(self, one: int, other: int) -> bool:
        return bool(self._physics.getClosestPoints(one, other, distance=BLOCK_CLEARANCE))

    def step(self) -> None:
        """Let button and switch act on the lights; once per control step, after the physics."""
        button, switch = self.joint_values()[2:]
        self.button_logic.step(button)
        self.switch_logic.step(switch)

    def joint_values(self) -> list[float]:
        """Slider, drawer, button and switch in metres."""
        return [state[0] for state in self._physics.getJointStates(self.table, self._joints)]

    def observe(self) -> np.ndarray:
        """CALVIN's ``scene_obs`` (24,) float64.

        slider, drawer, button, switch (metres), bulb, LED (0 or 1), then xyz and Euler angles of
        each block in the order of the scene's file.
        """
        values = [*self.joint_values(), float(self.lightbulb.lit), float(self.led.lit)]
        for body in self.blocks.values():
            position, quaternion = self._physics.getBasePositionAndOrientation(body)
            values += [*position, *pybullet.getEulerFromQuaternion(quaternion)]
        return np.array(values)
