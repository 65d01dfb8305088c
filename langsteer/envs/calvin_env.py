"""CALVIN's environment: same physics, states, cameras and tasks, in the gymnasium API.

You pay for what you use: `reset` and `step` return states only, and `CalvinEnv.observe` or
`CalvinEnv.render_camera` draw.

Example::

    env = CalvinEnv(scene="builtin")
    env.reset(seed=0)
    start = env.info()
    env.step([0, 0, -1, 0, 0, 0, 1])
    cloud = env.observe(point_cloud=True)["point_cloud"]
    detect(start, env.info())
    env.close()

Equality with calvin_env: a used world keeps contacts, impulses and an order of bodies. No call of
PyBullet resets them: the same reset twice differs by centimetres once blocks were touched. So
`reset` loads a used world anew (about 50 ms). After it the world equals a fresh process of the real
simulator to the bit.
"""

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from langsteer.envs.physics import (  # first, since it says what is not installed
    Physics,
    installed_distribution,
)

# isort: split
import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA
from langsteer.calvin.kinematics import camera_pose_from_tcp
from langsteer.calvin.scene_obs import SCENE_OBS_SIZE, SceneObs
from langsteer.calvin.tasks import SceneInfo
from langsteer.data.pointcloud import ObservationPipeline, point_cloud
from langsteer.envs.actions import ACTION_SIZE, Command, checked_action, checked_vector
from langsteer.envs.calvin_info import calvin_info
from langsteer.envs.oracle_view import OracleView
from langsteer.envs.playtable import (
    LedReset,
    PlayTable,
)
from langsteer.envs.rendering import (
    CAMERA_NAMES,
    Renderer,
    Viewpoint,
    gripper_view,
    make_renderer,
    static_view,
)
from langsteer.envs.robot import ROBOT_OBS_SIZE, Robot
from langsteer.envs.scene import BUILTIN, RendererName
from langsteer.envs.scene_config import load_scene
from langsteer.errors import UserError

SUBSTEPS = 8
"""Physics steps of 1/240 s in a control step of 1/30 s."""

Observation = dict[str, NDArray[np.float64]]


class CalvinEnv(gymnasium.Env[Any, Any]):
    """One robot at one play table, in this process.

    Args:
        scene: ``"builtin"`` or CALVIN's ``"A"`` ... ``"D"``.
        assets_path: CALVIN's ``calvin_env`` checkout, for A-D; see `calvin_root`.
        renderer: draws the cameras, see `langsteer.envs.rendering`.
        pipeline: the policy's observation pipeline. The renderer's ``pixel_centre`` replaces its
            own; its cameras must be CALVIN's, since these are drawn.
        led_reset: what the LED's button takes the LED for after a reset. ``"head"`` of calvin_env
            knows a lit one. ``"pinned"`` by mees/calvin, as in most results, takes it as off.
        render_mode: None, or ``"rgb_array"`` for gymnasium's `render`.

    Attributes:
        config: of the scene.
        pipeline: the observation pipeline in use.
        renderer_name: of the renderer.
        physics: the PyBullet world.
        table: the play table in it.

    Raises:
        UserError: an unknown scene, renderer or LED behaviour, or incomplete assets.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - gymnasium's type

    def __init__(
        self,
        scene: str = "builtin",
        assets_path: str | Path | None = None,
        renderer: str = "depth",
        pipeline: ObservationPipeline | None = None,
        led_reset: str = "head",
        render_mode: str | None = None,
    ) -> None:
        if led_reset not in get_args(LedReset):
            raise UserError(f"led_reset {led_reset!r}: expected one of {get_args(LedReset)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"render_mode {render_mode!r}: expected None or 'rgb_array'")
        wanted = pipeline or ObservationPipeline()
        # Clouds of other cameras than those drawn would be wrong without anyone noticing.
        drawn = replace(wanted, static=STATIC_CAMERA, gripper=GRIPPER_CAMERA)
        drawn.check_compatible(wanted)
        self.render_mode = render_mode
        self.config = load_scene(scene, assets_path)
        self.led_reset = cast(LedReset, led_reset)  # checked above
        self.observation_space = gymnasium.spaces.Dict(
            {
                "robot_obs": _unbounded(ROBOT_OBS_SIZE),
                "scene_obs": _unbounded(SCENE_OBS_SIZE),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float64)
        self.physics = Physics()
        self._close_physics = weakref.finalize(self, self.physics.close)
        try:
            self._renderer: Renderer = make_renderer(renderer, self.physics)
            self._load()
        except BaseException:
            self.close()
            raise
        self.renderer_name: RendererName = self._renderer.name
        self.pipeline = replace(drawn, pixel_centre=self._renderer.pixel_centre)

    def _load(self) -> None:
        config = self.config
        with config.robot_urdf() as urdf:
            self._robot = Robot(
                self.physics,
                urdf,
                config.robot_base_position,
                config.robot_base_euler,
                config.robot_initial_joints,
            )
        self.table = PlayTable(self.physics, config, self.led_reset)
        self._oracle_view = OracleView(self.physics, self._robot, self.table)
        self._is_fresh = True
        self._look()

    def _look(self) -> None:
        """Keep the states of this moment: drawing moves PyBullet's links on by a substep."""
        self._robot_obs = self._robot.observe()
        self._scene_obs = self.table.observe()
        self._camera_link_pose = self._robot.camera_pose()

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, ArrayLike] | None = None
    ) -> tuple[Observation, dict[str, object]]:
        """Start anew, at a given state or at random, from a clean physics state.

        Args:
            seed: of the random start states from here on.
            options: ``"robot_obs"`` (15,) and ``"scene_obs"`` (24,), one or both. The arm takes the
                joints and the gripper width, not the tcp pose, of ``robot_obs``. Without
                ``"scene_obs"`` doors are closed, lights off and blocks on random surfaces.

        Returns:
            The observation one physics step later, as in CALVIN, and an empty dictionary.

        Raises:
            UserError: a state of another length, not finite, or with a light neither 0 nor 1.
        """
        super().reset(seed=seed)
        robot_obs, scene_obs = self._checked_start(options or {})
        self._require_open()
        if scene_obs is None:
            scene_obs = self._random_scene()
        # A used world keeps hidden state: only a new one repeats calvin_env to the bit.
        if not self._is_fresh:
            self._renderer.empty_world()
            self._load()
        self._is_fresh = False
        self.table.reset(scene_obs)
        self._robot.reset(robot_obs)
        self.physics.stepSimulation()
        self._look()
        return self._state(), {}

    def _checked_start(
        self, options: Mapping[str, ArrayLike]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        unknown = set(options) - {"robot_obs", "scene_obs"}
        if unknown:
            raise UserError(f"reset: unknown options {sorted(unknown)}")
        robot_obs, scene_obs = options.get("robot_obs"), options.get("scene_obs")
        if robot_obs is not None:
            robot_obs = checked_vector(robot_obs, ROBOT_OBS_SIZE, "reset: robot_obs")
        if scene_obs is not None:
            scene_obs = checked_vector(scene_obs, SCENE_OBS_SIZE, "reset: scene_obs")
            lights = SceneObs(scene_obs).lights
            if not np.isin(lights, (0.0, 1.0)).all():
                raise UserError(
                    f"reset: scene_obs[4:6], bulb and LED, must be 0 or 1, found {lights.tolist()}"
                )
        return robot_obs, scene_obs

    def _random_scene(self) -> NDArray[np.float64]:
        self._is_fresh = False
        scene = SceneObs.at_rest()
        scene.blocks[:] = self.table.sample_block_poses(self.np_random)
        return scene.vector

    def step(
        self, action: ArrayLike | Command
    ) -> tuple[Observation, float, bool, bool, dict[str, object]]:
        """One control step of 1/30 s.

        Args:
            action: (7,) relative action, or an absolute one, see `langsteer.envs.actions`.

        Returns:
            Observation, reward 0, neither terminated nor truncated, an empty dictionary: it has no
            task. `langsteer.compat.gym_env` gives it one, with its reward.

        Raises:
            UserError: an action of another shape or not finite.
        """
        # A bad action must leave the world untouched.
        checked = action if isinstance(action, Command) else checked_action(action)
        self._require_open()
        self._is_fresh = False
        self._robot.apply(checked)
        for _ in range(SUBSTEPS):
            self.physics.stepSimulation()
        # Lights follow the joints once per control step, as in CALVIN.
        self.table.step()
        self._look()
        return self._state(), 0.0, False, False, {}

    def _state(self) -> Observation:
        return {"robot_obs": self.robot_obs, "scene_obs": self.scene_obs}

    @property
    def robot_obs(self) -> NDArray[np.float64]:
        """CALVIN's ``robot_obs`` (15,) float64 after the last step; a copy.

        tcp xyz, tcp Euler angles, gripper width (m), 7 joint angles, gripper command (±1).
        """
        return self._robot_obs.copy()

    def joint_angles(self) -> NDArray[np.float64]:
        """The present angles of the arm's joints, (7,) float64 radians."""
        self._require_open()
        return self._robot.joint_angles()

    @property
    def commanded_pose(self) -> NDArray[np.float64]:
        """The pose (6,) float64 to which the next relative action is added; a copy.

        xyz in metres and Euler angles in radians, not wrapped. The arm lags behind it; after a
        reset they are the same.
        """
        return np.concatenate([self._robot.target_position, self._robot.target_euler])

    @property
    def scene_obs(self) -> NDArray[np.float64]:
        """CALVIN's ``scene_obs`` (24,) float64 after the last step; a copy.

        slider, drawer, button, switch (m), bulb, LED (0, 1), xyz and Euler angles of three blocks
        in the order of ``block_names``.
        """
        return self._scene_obs.copy()

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks in the order of ``scene_obs``; it differs from scene to scene."""
        return tuple(block.name for block in self.config.blocks)

    def info(self) -> SceneInfo:
        """The scene as the task oracle sees it."""
        self._require_open()
        return self._oracle_view.snapshot()

    def calvin_info(self) -> dict[str, object]:
        """The scene as ``get_info`` of calvin_env tells it, with PyBullet's numbers for bodies."""
        self._require_open()
        return calvin_info(self.physics, self._robot, self.table)

    def observe(
        self, cameras: tuple[str, ...] = (), point_cloud: bool = False, coloured: bool = False
    ) -> dict[str, Any]:
        """The observation of this moment, with the requested images drawn.

        Args:
            cameras: of ``"static"`` and ``"gripper"``; each is drawn in colour and depth.
            point_cloud: whether the policy's cloud is made.
            coloured: whether its points have colours, too.

        Returns:
            ``robot_obs`` (15,), ``scene_obs`` (24,); with cameras ``rgb_obs`` of ``rgb_static``
            (200, 200, 3) uint8 and so on and ``depth_obs`` of ``depth_static`` (200, 200) float32
            and so on; with ``point_cloud`` a (P, 3) float32 cloud, metres, world frame; (P, 6)
            if ``coloured``.
        """
        observation: dict[str, object] = {**self._state()}
        if cameras:
            images = {name: self.render_camera(name) for name in cameras}
            observation["rgb_obs"] = {f"rgb_{name}": rgb for name, (rgb, _) in images.items()}
            observation["depth_obs"] = {
                f"depth_{name}": depth for name, (_, depth) in images.items()
            }
        if point_cloud:
            observation["point_cloud"] = self._point_cloud(coloured)
        return observation

    def _point_cloud(self, coloured: bool) -> NDArray[np.float32]:
        """(P, 3 or 6) float32, by the same function as the conversion of datasets."""
        self._require_open()
        pose = camera_pose_from_tcp(self._robot_obs)
        if coloured:
            images = {name: self.render_camera(name) for name in self.pipeline.cameras}
            colours = {name: rgb for name, (rgb, _) in images.items()}
            depth = {name: image for name, (_, image) in images.items()}
            return point_cloud(self.pipeline, depth, pose, colours)
        # Depth alone, and of the part that counts: colours cost most of a step.
        crops = {"static": self.pipeline.static_crop, "gripper": None}
        depth = {
            name: self._renderer.render_depth(self.view(name), crops[name])
            for name in self.pipeline.cameras
        }
        return point_cloud(self.pipeline, depth, pose)

    def render_camera(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The present image of a camera.

        Args:
            name: ``"static"`` (200 x 200) or ``"gripper"`` (84 x 84).

        Returns:
            Colours (H, W, 3) uint8 and depth (H, W) float32 in metres along the camera's axis. With
            renderer ``"depth"``, TinyRenderer draws the colours, half a pixel apart.
        """
        self._require_open()
        return self._renderer.render(self.view(name))

    def render_depth(self, name: str) -> NDArray[np.float32]:
        """Depth alone, (H, W) float32 in metres; with renderer ``"depth"`` a hundred times cheaper.

        Args:
            name: ``"static"`` or ``"gripper"``.
        """
        self._require_open()
        return self._renderer.render_depth(self.view(name))

    def view(self, name: str) -> Viewpoint:
        """The present view of a camera."""
        if name not in CAMERA_NAMES:
            raise UserError(f"no camera {name!r}: expected one of {', '.join(CAMERA_NAMES)}")
        return static_view() if name == "static" else gripper_view(*self._camera_link_pose)

    def render(self) -> NDArray[np.uint8] | None:
        """Gymnasium's: the static camera's colours (200, 200, 3) uint8, or None without a mode."""
        return self.render_camera("static")[0] if self.render_mode == "rgb_array" else None

    def provenance(self) -> dict[str, object]:
        """All that results of this environment depend on, in plain JSON types."""
        return {
            "scene": self.config.name,
            "assets": {
                "source": "langsteer" if self.config.name == BUILTIN else "calvin_env",
                "sha256": self.config.fingerprint(),
            },
            "renderer": self.renderer_name,
            "pixel_centre": list(self.pipeline.pixel_centre),
            "led_reset": self.led_reset,
            **installed_distribution(),
        }

    def _require_open(self) -> None:
        if self.physics.client_id < 0:
            raise UserError("this environment is closed; make another one")

    def close(self) -> None:
        """Free the physics world; a second call does nothing."""
        self._close_physics()


def _unbounded(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
