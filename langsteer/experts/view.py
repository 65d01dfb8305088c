"""What a scripted skill sees: the places of a scene's parts, and the true state of the moment.

A scene tells once where its parts are (`read_layout`).

Example::

    layout = read_layout(env)
    view = View(layout, env.robot_obs, env.scene_obs)
    view.block("red").position, view.state.drawer
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from langsteer.calvin.cameras import rotation_from_euler
from langsteer.calvin.kinematics import GRIPPER_WIDTH
from langsteer.calvin.layout import (
    BLOCK_WIDTH,
    DOOR_FRONT,
    HANDLE_FRONT,
    HANDLE_HALF_WIDTH,
    Layout,
)
from langsteer.calvin.scene_obs import SceneObs

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv

BUTTON_RADIUS = 0.036
REACH = 0.4
"""Blocks within these metres to either side of the table's middle are in reach."""

PUSH_ROOM = 0.11


def has_push_room(layout: Layout, block: "BlockView", direction: int) -> bool:
    """Whether a block pushed along x stays in reach and clear of the button."""
    x, y, _ = block.position
    ahead = x + direction * (PUSH_ROOM + block.half_extents[0])
    if abs(ahead) > REACH:
        return False
    beside = abs(y - layout.button[1]) > BUTTON_RADIUS + BLOCK_WIDTH
    gap = direction * (layout.button[0] - x)
    return bool(beside or gap < 0 or gap > direction * (ahead - x) + BUTTON_RADIUS)


@dataclass(frozen=True)
class BlockView:
    """A block at the moment: (3,) position, (3, 3) rotation, and half its length in metres."""

    position: np.ndarray
    rotation: np.ndarray
    half_length: float

    @cached_property
    def yaw(self) -> float:
        """Angle of the block's level long axis, or of any level edge if it stands on its end."""
        axis = self.rotation[:, 0]
        if abs(axis[2]) > 0.7:
            axis = self.rotation[:, 1]
        return float(np.arctan2(axis[1], axis[0]))

    @property
    def is_cube(self) -> bool:
        """Whether either pair of the block's level sides can be gripped."""
        return self.half_length < 0.022 or self.stands

    @property
    def stands(self) -> bool:
        """Whether the block's long axis points up."""
        return abs(float(self.rotation[2, 0])) > 0.7

    @property
    def half_extents(self) -> tuple[float, float]:
        """Half of a flat block's extent along the world's x and y axes."""
        return half_extents(self.half_length, self.yaw)


@dataclass(frozen=True)
class View:
    """The true state of a moment.

    Attributes:
        layout: of the scene.
        robot_obs: (15,) float64.
        scene_obs: (24,) float64.
    """

    layout: Layout
    robot_obs: np.ndarray
    scene_obs: np.ndarray

    @property
    def state(self) -> SceneObs:
        """Joints, lights and blocks by name."""
        return SceneObs(self.scene_obs)

    @property
    def tcp(self) -> np.ndarray:
        """(3,) measured position of the tcp."""
        return self.robot_obs[:3]

    @property
    def gripper_width(self) -> float:
        """Metres between the fingers, 0 to 0.08."""
        return float(self.robot_obs[GRIPPER_WIDTH])

    def door_front(self, x: float, half_width: float) -> float:
        """The y of the door's front within ``half_width`` of ``x``; before it is free space."""
        from_handle = abs(x - self.layout.handle(self.state.slider)[0])
        return HANDLE_FRONT if from_handle < HANDLE_HALF_WIDTH + half_width else DOOR_FRONT

    def room_before_door(self, block: BlockView) -> float:
        """Metres between a flat block and the door; negative if they meet."""
        x, y, _ = (float(value) for value in block.position)
        along_x, along_y = block.half_extents
        return self.door_front(x, along_x) - y - along_y

    def highest(self) -> str:
        """The colour of the highest block."""
        return max(self.layout.colours, key=lambda colour: float(self.block(colour).position[2]))

    def block(self, colour: str) -> BlockView:
        """The block of this colour."""
        pose = self.state.blocks[self.layout.colours.index(colour)]
        return BlockView(
            pose[:3].copy(), rotation_from_euler(pose[3:]), self.layout.half_lengths[colour]
        )


def half_extents(half_length: float, yaw: float) -> tuple[float, float]:
    """Half the extent along x and y of a flat block at this ``yaw``; metres."""
    cosine, sine = abs(np.cos(yaw)), abs(np.sin(yaw))
    along_x = half_length * cosine + BLOCK_WIDTH / 2 * sine
    return float(along_x), float(half_length * sine + BLOCK_WIDTH / 2 * cosine)


def read_layout(env: "CalvinEnv") -> Layout:
    """The places of the scene's parts: of the scene alone, whatever happened in it."""
    config, physics, table = env.config, env.physics, env.table
    slider, drawer = table.frames[config.slider_joint], table.frames[config.drawer_joint]
    switch = table.frames[config.switch_joint]
    return Layout(
        slider=slider.origin,
        drawer=drawer.origin,
        button=table.frames[config.button_joint].origin,
        switch=switch.origin,
        switch_axis=switch.axis,
        slider_range=slider.upper,
        drawer_range=drawer.upper,
        switch_range=switch.upper,
        colours=tuple(name.removeprefix("block_") for name in table.blocks),
        half_lengths={
            name.removeprefix("block_"): physics.getCollisionShapeData(body, -1)[0][3][0] / 2
            for name, body in table.blocks.items()
        },
        surfaces=config.surfaces,
    )
