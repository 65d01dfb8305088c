"""Observations of CALVIN under the keys of gymnasium's and LeRobot's code.

``agent_pos`` (15,) float32 is always there: CALVIN's ``robot_obs``. Name the other parts, joined by
``+``: drawing takes most of a step's time.

| part | keys |
|---|---|
| ``state`` | ``environment_state`` (24,) float32, CALVIN's ``scene_obs`` |
| ``rgb`` | ``pixels`` of ``static`` (200, 200, 3) and ``gripper`` (84, 84, 3), uint8 |
| ``depth`` | ``depth_static`` (200, 200), ``depth_gripper`` (84, 84), float32 metres along the |
| | axis; ``intrinsics_*`` (3, 3), ``camera_pose_*`` (4, 4) world from optical frame, float32 |
| ``cloud`` | ``point_cloud`` (2048, 3) float32 metres, world frame: DP3's input |
| ``coloured_cloud`` | ``point_cloud`` (2048, 6): metres, then red, green, blue in 0 to 1 |

Example::

    parts = Observations(env, "rgb+depth")
    parts.space["depth_static"].shape    # (200, 200)
    parts.observe()["agent_pos"]         # (15,)
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import Camera
from langsteer.calvin.scene_obs import SCENE_OBS_SIZE
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.rendering import CAMERA_NAMES
from langsteer.envs.robot import ROBOT_OBS_SIZE
from langsteer.errors import UserError

COLOURED_CLOUD = "coloured_cloud"
PARTS = ("state", "rgb", "depth", "cloud", COLOURED_CLOUD)
CLOUD_COLUMNS = {"cloud": 3, COLOURED_CLOUD: 6}
"""Of ``point_cloud``, by the part that asks for it."""


class Observations:
    """Looks at one environment.

    Args:
        env: the simulator.
        observation: the parts, e.g. ``"rgb+depth"``.

    Attributes:
        parts: those asked for.
        space: gymnasium's space of an observation.

    Raises:
        UserError: an unknown part, or clouds of both kinds.
    """

    def __init__(self, env: CalvinEnv, observation: str) -> None:
        self.parts = checked_parts(observation)
        self._env = env
        self._cameras = {name: env.view(name).camera for name in CAMERA_NAMES}
        self.space = gymnasium.spaces.Dict(self._spaces())

    def _spaces(self) -> dict[str, gymnasium.spaces.Space[Any]]:
        spaces: dict[str, gymnasium.spaces.Space[Any]] = {"agent_pos": _floats(ROBOT_OBS_SIZE)}
        if "state" in self.parts:
            spaces["environment_state"] = _floats(SCENE_OBS_SIZE)
        if "rgb" in self.parts:
            images = {
                name: gymnasium.spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
                for name, camera in self._cameras.items()
            }
            spaces["pixels"] = gymnasium.spaces.Dict(dict(images))
        if "depth" in self.parts:
            for name, camera in self._cameras.items():
                spaces[f"depth_{name}"] = _floats(camera.height, camera.width, low=0.0)
                spaces[f"intrinsics_{name}"] = _floats(3, 3)
                spaces[f"camera_pose_{name}"] = _floats(4, 4)
        for part in CLOUD_COLUMNS.keys() & self.parts:
            spaces["point_cloud"] = _floats(self._env.pipeline.n_points, CLOUD_COLUMNS[part])
        return spaces

    def observe(self) -> dict[str, object]:
        """The observation of this moment."""
        found: dict[str, object] = {"agent_pos": self._env.robot_obs.astype(np.float32)}
        if "state" in self.parts:
            found["environment_state"] = self._env.scene_obs.astype(np.float32)
        if "rgb" in self.parts:
            images = {name: self._env.render_camera(name) for name in CAMERA_NAMES}
            found["pixels"] = {name: rgb for name, (rgb, _) in images.items()}
            depth = {name: image for name, (_, image) in images.items()}
        elif "depth" in self.parts:
            depth = {name: self._env.render_depth(name) for name in CAMERA_NAMES}
        if "depth" in self.parts:
            for name, camera in self._cameras.items():
                pose = self._env.view(name).world_from_optical()
                found[f"depth_{name}"] = depth[name]
                found[f"intrinsics_{name}"] = self._intrinsics(camera)
                found[f"camera_pose_{name}"] = pose.astype(np.float32)
        if CLOUD_COLUMNS.keys() & self.parts:
            coloured = COLOURED_CLOUD in self.parts
            seen = self._env.observe(point_cloud=True, coloured=coloured)
            found["point_cloud"] = seen["point_cloud"]
        return found

    def _intrinsics(self, camera: Camera) -> NDArray[np.float32]:
        """(3, 3): pixel (u, v) of the array lies at ``K @ (x / z, y / z, 1)`` of a point.

        The renderer does not sample every pixel at its centre; the principal point accounts for it.
        """
        (x, y), (dx, dy) = camera.centre, self._env.pipeline.pixel_centre
        focal = camera.focal
        return np.array([[focal, 0, x - dx], [0, focal, y - dy], [0, 0, 1]], np.float32)


def checked_parts(observation: str) -> tuple[str, ...]:
    """``"rgb+depth"`` as its parts; raises `UserError` for an unknown one, or two clouds."""
    parts = tuple(part for part in observation.split("+") if part)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UserError(
            f"observation {observation!r}: no part {unknown[0]!r}; join some of "
            f"{', '.join(PARTS)} by '+'"
        )
    if set(CLOUD_COLUMNS) <= set(parts):
        raise UserError(f"observation {observation!r}: name cloud or {COLOURED_CLOUD}, not both")
    return parts


def _floats(*shape: int, low: float = -np.inf) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, np.inf, shape, np.float32)
