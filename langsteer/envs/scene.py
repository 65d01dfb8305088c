"""The parts of a scene: files, joints, lights, blocks and their possible places at the start.

CALVIN's scenes are read by `langsteer.envs.scene_config`, the built-in one stands in
`langsteer.envs.builtin`.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from langsteer.reading import read_bytes

BUILTIN = "builtin"
MOST_URDF = 1 << 24
"""Bytes of a URDF or of a scene's configuration; CALVIN's largest has 2^14."""
CALVIN_SCENES = ("A", "B", "C", "D")
SCENES = (BUILTIN, *CALVIN_SCENES)
SCENE_NOTES = {
    BUILTIN: "scene D in plain shapes, needs no download",
    **{
        name: f"CALVIN's own {name}; scripts/setup_calvin.sh fetches it (30 MB, all four)"
        for name in CALVIN_SCENES
    },
}
"""Name to a description of the scene, in a line."""
RendererName = Literal["depth", "tiny", "egl"]
RENDERERS: tuple[str, ...] = get_args(RendererName)

Vector = tuple[float, ...]


@dataclass(frozen=True)
class BlockConfig:
    """A movable block: its name and URDF file."""

    name: str
    urdf: Path


@dataclass(frozen=True)
class LightConfig:
    """A light: a link of the table, and its colour (red, green, blue, alpha) when lit."""

    link: str
    colour: Vector


@dataclass(frozen=True)
class SceneConfig:
    """One scene; lengths in metres, angles in radians, world frame.

    Attributes:
        name: ``"builtin"`` or ``"A"`` ... ``"D"``.
        robot_urdf: gives the file for as long as it is loaded: the built-in arm's is temporary.
        blocks: in the order of ``scene_obs``; it differs from scene to scene.
        surfaces: places for blocks at the start, by name: (lower, upper) corners, (2, 3).
        global_scaling: factor on table and blocks.
    """

    name: str
    robot_urdf: Callable[[], AbstractContextManager[Path]]
    robot_base_position: Vector
    robot_base_euler: Vector
    robot_initial_joints: Vector
    table_urdf: Path
    table_position: Vector
    table_euler: Vector
    plane_urdf: Path
    global_scaling: float
    blocks: tuple[BlockConfig, ...]
    slider_joint: str
    drawer_joint: str
    button_joint: str
    switch_joint: str
    lightbulb: LightConfig
    led: LightConfig
    surfaces: Mapping[str, tuple[Vector, Vector]]

    def sample_block_pose(self, rng: np.random.Generator) -> np.ndarray:
        """A pose (6,) on a random surface with a random yaw, drawn as CALVIN draws it."""
        lower, upper = self.surfaces[str(rng.choice(list(self.surfaces)))]
        position = rng.uniform(lower, upper)
        return np.concatenate([position, rng.uniform([0, 0, -np.pi], [0, 0, np.pi])])

    def fingerprint(self) -> str:
        """SHA-256 over the URDFs of table, blocks and floor: another one, another scene."""
        digest = hashlib.sha256()
        for urdf in (self.table_urdf, *(block.urdf for block in self.blocks), self.plane_urdf):
            digest.update(read_bytes(urdf, MOST_URDF))
        return digest.hexdigest()
