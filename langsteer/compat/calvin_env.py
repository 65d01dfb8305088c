"""calvin_env's interface around this simulator: code written for it runs unchanged.

Example::

    from langsteer.compat import calvin_env
    calvin_env.install()    # from here on, `import calvin_env` means this simulator
    from calvin_agent.evaluation.evaluate_policy import evaluate_policy   # mees/calvin's own file
    evaluate_policy(model, calvin_env.get_env("task_D_D/validation", renderer="tiny"), epoch=0)

From a reset on, states, tasks and TinyRenderer's images equal those of the real environment to the
bit. In the real one, a second reset in a process leaves contacts of the last episode in the physics
engine; here each reset is clean.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langsteer.calvin.benchmark import N_CHAINS, chains, fnv1_seed, initial_observations
from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA
from langsteer.calvin.dataset import CONFIG, read_config
from langsteer.compat.calvin_actions import read_action
from langsteer.compat.calvin_tasks import Tasks
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.rendering import CAMERA_NAMES
from langsteer.errors import UserError
from langsteer.reading import read_yaml

Obs = dict[str, Any]


class PlayTableSimEnv:
    """calvin_env's ``PlayTableSimEnv``.

    Args:
        env: the simulator.
        cameras: of an observation, ``"static"`` and ``"gripper"``. Drawing them takes nearly all
            the time of a step.

    Attributes:
        env: the simulator.
    """

    def __init__(self, env: CalvinEnv, cameras: Sequence[str] = CAMERA_NAMES) -> None:
        self.env = env
        self._cameras = tuple(cameras)

    def reset(self, robot_obs: ArrayLike | None = None, scene_obs: ArrayLike | None = None) -> Obs:
        """Start anew, at a given state or at random.

        Args:
            robot_obs: (15,); joints, gripper width and gripper command are read.
            scene_obs: (24,).

        Returns:
            The observation, see `get_obs`.

        Raises:
            UserError: a state of another length, or not finite.
        """
        given = {"robot_obs": robot_obs, "scene_obs": scene_obs}
        self.env.reset(options={key: value for key, value in given.items() if value is not None})
        return self.get_obs()

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the random starts of ``reset()``."""
        self.env.reset(seed=seed)
        return [seed]

    def step(self, action: Any) -> tuple[Obs, int, bool, dict[str, Any]]:  # noqa: ANN401 - many forms
        """One control step of 1/30 s; ``action`` as in `langsteer.compat.calvin_actions`.

        Returns:
            Observation, reward 0, not done, and `get_info`.
        """
        self.env.step(read_action(action, self.env.joint_angles))
        return self.get_obs(), 0, False, self.get_info()

    def get_obs(self) -> Obs:
        """The observation of this moment.

        Returns:
            ``rgb_obs`` of ``rgb_static`` (200, 200, 3) uint8 and ``rgb_gripper`` (84, 84, 3),
            ``depth_obs`` of ``depth_static`` (200, 200) float32 metres and ``depth_gripper``,
            ``robot_obs`` (15,) and ``scene_obs`` (24,) float64.
        """
        empty: Obs = {"rgb_obs": {}, "depth_obs": {}}
        return empty | self.env.observe(cameras=self._cameras)

    def get_state_obs(self) -> Obs:
        """``robot_obs`` and ``scene_obs`` alone; draws nothing."""
        return self.env.observe()

    def get_camera_obs(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """``rgb_obs`` and ``depth_obs`` of `get_obs`."""
        observation = self.get_obs()
        return observation["rgb_obs"], observation["depth_obs"]

    def get_info(self) -> dict[str, Any]:
        """``robot_info`` and ``scene_info``, for the task oracle to compare."""
        return self.env.calvin_info()

    def get_scene_info(self) -> dict[str, Any]:
        """``scene_info`` alone."""
        scene: dict[str, Any] = self.get_info()["scene_info"]
        return scene

    def render(self, mode: str = "rgb_array") -> NDArray[np.uint8]:
        """The static camera's colours (200, 200, 3) uint8.

        Raises:
            UserError: mode ``"human"``: there is no window.
        """
        if mode != "rgb_array":
            raise UserError(f"render(mode={mode!r}): there is no window; use 'rgb_array'")
        return self.env.render_camera("static")[0]

    def close(self) -> None:
        """Free the simulator; a second call does nothing."""
        self.env.close()


def get_env(
    dataset_path: str | Path | None = None,
    obs_space: Mapping[str, Sequence[str]] | None = None,
    show_gui: bool = False,
    scene: str | None = None,
    renderer: str | None = None,
    assets_path: str | Path | None = None,
    led_reset: str = "head",
) -> PlayTableSimEnv:
    """The environment of a CALVIN dataset, like ``calvin_env.envs.play_table_env.get_env``.

    Args:
        dataset_path: ``training`` or ``validation`` of a dataset; its ``.hydra/merged_config.yaml``
            tells scene and renderer. Not needed if ``scene`` is given.
        obs_space: ``rgb_obs`` and ``depth_obs`` with the names of images; only their cameras are
            drawn. None draws both.
        show_gui: there is no window, so only False.
        scene: ``"calvin_scene_D"``, ``"D"``, or ``"builtin"``, instead of the dataset's.
        renderer: ``"egl"``, ``"tiny"`` or ``"depth"``, instead of the dataset's
            (``use_egl``); see `langsteer.envs.rendering`.
        assets_path: CALVIN's ``calvin_env`` checkout; by default as `calvin_root` says.
        led_reset: ``"head"`` of calvin_env or ``"pinned"`` by mees/calvin.

    Raises:
        UserError: no scene is given, a camera is not drawn here, or `CalvinEnv` refuses.
    """
    if show_gui:
        raise UserError("show_gui=True: there is no window; use render(mode='rgb_array')")
    if dataset_path is None and scene is None:
        raise UserError("get_env: give dataset_path or scene")
    # The dataset says how its images were made, and the arguments overrule it.
    if dataset_path is not None:
        told_scene, told_renderer = _told(Path(dataset_path))
        scene, renderer = scene or told_scene, renderer or told_renderer
    env = CalvinEnv(str(scene), assets_path, renderer or "tiny", led_reset=led_reset)
    return PlayTableSimEnv(env, _cameras(obs_space))


def _told(folder: Path) -> tuple[str, str]:
    """Scene and renderer of a split's configuration; its cameras must be CALVIN's."""
    config = read_config(folder)
    if (config.static, config.gripper) != (STATIC_CAMERA, GRIPPER_CAMERA):
        raise UserError(
            f"{folder / CONFIG}: its cameras are not CALVIN's ({config.static}, "
            f"{config.gripper}); only those are drawn here"
        )
    tree = read_yaml(folder / CONFIG)
    name = tree["scene"].get("name")
    if not isinstance(name, str):
        raise UserError(f"{folder / CONFIG}: it names no scene; give scene=")
    return name, config.renderer


def _cameras(obs_space: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    if obs_space is None:
        return CAMERA_NAMES
    asked = [*obs_space.get("rgb_obs", ()), *obs_space.get("depth_obs", ())]
    names = {name.split("_")[1] for name in asked}
    if not names <= set(CAMERA_NAMES):
        raise UserError(f"obs_space {asked}: only the cameras {CAMERA_NAMES} are drawn here")
    return tuple(name for name in CAMERA_NAMES if name in names)


def get_sequences(
    num_sequences: int = N_CHAINS,
) -> list[tuple[dict[str, int | str], tuple[str, ...]]]:
    """The benchmark's chains as (initial state, five tasks): its first ``num_sequences`` of 1000.

    ``calvin_agent.evaluation.multistep_sequences.get_sequences`` returns these for 1000, and draws
    others for any other number.
    """
    return [(dict(chain.initial_state), chain.tasks) for chain in chains(num_sequences)]


def get_env_state_for_initial_condition(
    initial_condition: Mapping[str, int | str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``robot_obs`` (15,) and ``scene_obs`` (24,) of a chain's initial state."""
    return initial_observations(initial_condition)


def install() -> None:
    """Let ``import calvin_env`` mean this simulator, for unchanged code.

    ``calvin_env.envs.play_table_env`` then has `get_env` and `PlayTableSimEnv`, and
    ``calvin_env.envs.tasks`` has `Tasks`. mees/calvin needs ``pyhash``, and no current Python
    builds it: it is put in place, too, if it is not installed.

    Raises:
        UserError: the real calvin_env was imported already.
    """
    found = sys.modules.get("calvin_env")
    # Two simulators under one name would mix silently.
    if found is not None and not getattr(found, "__langsteer__", False):
        raise UserError(f"calvin_env is imported already, from {found.__file__}; install() first")
    # Parents first: an import of a submodule looks them up.
    _module("calvin_env", __langsteer__=True, __file__=__file__)
    _module("calvin_env.envs")
    _module("calvin_env.envs.tasks", Tasks=Tasks)
    _module("calvin_env.envs.play_table_env", get_env=get_env, PlayTableSimEnv=PlayTableSimEnv)
    if "pyhash" not in sys.modules and importlib.util.find_spec("pyhash") is None:
        _module("pyhash", fnv1_32=lambda: fnv1_seed)


def _module(name: str, **content: object) -> None:
    """Put a module of this content where imports find it, and into its parent."""
    module = ModuleType(name, f"Put in place by {__name__}.install.")
    module.__dict__.update(content)
    module.__path__ = []  # a package: modules below it can be imported
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
