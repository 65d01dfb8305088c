"""What ``--env.*`` says of CALVIN, and the vector environments that it makes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA
from langsteer.calvin.tasks import TASKS, checked_task
from langsteer.compat.gym_env import CalvinChainEnv, CalvinTaskEnv
from langsteer.compat.observations import CLOUD_COLUMNS, checked_parts
from langsteer.data.pointcloud import ObservationPipeline

LONG_HORIZON, ALL = "long_horizon", "all"
_CAMERAS = {"static": STATIC_CAMERA, "gripper": GRIPPER_CAMERA}
VectorEnvs = dict[str, dict[int, gymnasium.vector.VectorEnv]]


@EnvConfig.register_subclass("calvin")
@dataclass
class CalvinEnv(EnvConfig):
    """CALVIN's tasks, or its long-horizon benchmark; the keys are told in the README."""

    task: str | None = "open_drawer"
    fps: int = 30
    scene: str = "builtin"
    observation: str = "rgb"
    renderer: str = "tiny"
    assets_path: str | None = None
    led_reset: str = "head"
    max_steps: int = STEPS_PER_TASK
    clouds_of: str | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Say which features the parts asked for bring."""
        self._feature("action", FeatureType.ACTION, (7,), ACTION)
        self._feature("agent_pos", FeatureType.STATE, (15,), OBS_STATE)
        parts = checked_parts(self.observation)
        if "state" in parts:
            self._feature("environment_state", FeatureType.ENV, (24,), OBS_ENV_STATE)
        for name, camera in _CAMERAS.items():
            size = (camera.height, camera.width)
            if "rgb" in parts:
                key = f"{OBS_IMAGES}.{name}"
                self._feature(f"pixels/{name}", FeatureType.VISUAL, (*size, 3), key)
            if "depth" in parts:
                self._feature(f"depth_{name}", FeatureType.ENV, size)
                self._feature(f"intrinsics_{name}", FeatureType.ENV, (3, 3))
                self._feature(f"camera_pose_{name}", FeatureType.ENV, (4, 4))
        for part in CLOUD_COLUMNS.keys() & parts:
            size = (self.pipeline().n_points, CLOUD_COLUMNS[part])
            self._feature("point_cloud", FeatureType.ENV, size)

    def _feature(
        self, name: str, kind: FeatureType, shape: tuple[int, ...], key: str | None = None
    ) -> None:
        self.features[name] = PolicyFeature(type=kind, shape=shape)
        self.features_map[name] = key or f"observation.{name}"

    def pipeline(self) -> ObservationPipeline:
        """What makes the clouds: the pipeline of the policy ``clouds_of``, or the default.

        Raises:
            UserError: the policy cannot be read.
        """
        if self.clouds_of is None:
            return ObservationPipeline()
        from langsteer.policies.agent import load_agent

        return load_agent(self.clouds_of).pipeline

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What the environment's class is made with."""
        return {
            "scene": self.scene,
            "observation": self.observation,
            "renderer": self.renderer,
            "assets_path": self.assets_path,
            "led_reset": self.led_reset,
            "max_steps": self.max_steps,
            "pipeline": self.pipeline(),
            "render_mode": "rgb_array",
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> VectorEnvs:
        """Vector environments by suite and number of the task.

        Raises:
            UserError: an unknown task.
        """
        settings = self.gym_kwargs
        if self.task == LONG_HORIZON:
            make = [partial(CalvinChainEnv, **settings)] * n_envs
            return {"calvin_long_horizon": {0: _vector(make, use_async_envs)}}
        names = TASKS if self.task == ALL else str(self.task).split(",")
        return {
            "calvin": {
                number: _vector(
                    [partial(CalvinTaskEnv, checked_task(name), **settings)] * n_envs,
                    use_async_envs,
                )
                for number, name in enumerate(names)
            }
        }


def _vector(
    make: list[Callable[[], gymnasium.Env[Any, Any]]], use_async_envs: bool
) -> gymnasium.vector.VectorEnv:
    """Environments that do no work after their episode's end, as LeRobot's own."""
    frozen = [freeze_after_episode_end(one) for one in make]
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    if use_async_envs and len(make) > 1:
        # A server process that starts clean: a fork would copy PyBullet's and PyTorch's threads.
        return gymnasium.vector.AsyncVectorEnv(frozen, context="forkserver", autoreset_mode=mode)
    return gymnasium.vector.SyncVectorEnv(frozen, autoreset_mode=mode)


def make_env(
    n_envs: int = 1,
    use_async_envs: bool = False,
    **settings: Any,  # noqa: ANN401 - told below
) -> VectorEnvs:
    """EnvHub's entry point: the same environments without a configuration.

    Args:
        n_envs: how many in a vector environment.
        use_async_envs: whether each has a process.
        settings: of `CalvinEnv`.
    """
    settings.pop("cfg", None)
    return CalvinEnv(**settings).create_envs(n_envs, use_async_envs)
