"""Fixtures that many tests share."""

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from langsteer.calvin.cameras import PIXEL_CENTRE, STATIC_CAMERA, Camera, FixedCamera, rays
from langsteer.calvin.dataset import Annotation
from langsteer.calvin.dataset_writer import (
    achieved_actions,
    merged_config,
    save_frame,
    save_metadata,
)
from langsteer.calvin.kinematics import gripper_camera_pose, tcp_pose

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# How long an example takes depends on what else the machine does.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


def pytest_configure() -> None:
    """Let tests interrupt their processes where this one ignores it, as in a script's background.

    An ignored SIGINT is inherited; a handled one is the default again in a new program.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with CALVIN's sample, assets, traces and reference outputs."""
    if not SHARED.is_dir():
        pytest.skip("../shared, which holds the CALVIN sample and the references, is not here")
    return SHARED


@pytest.fixture(scope="session")
def calvin_assets(shared: Path) -> Path:
    """A checkout of calvin_env: its data and conf folders."""
    return shared / "calvin_assets"


@pytest.fixture
def assets_of(request: pytest.FixtureRequest) -> Callable[[str], Path | None]:
    """A function: the assets that an environment of a scene needs, None for the built-in one."""
    return lambda scene: None if scene == "builtin" else request.getfixturevalue("calvin_assets")


@pytest.fixture(scope="session")
def traces(shared: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the real simulator did: name of the trace to its arrays."""
    folder = shared / "reference" / "calvin_traces"
    return {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}


@pytest.fixture(scope="session")
def tiny_training() -> list[str]:
    """Keys of a training whose policy is so small that a step takes some milliseconds."""
    return [
        "training=dp3_debug",
        "policy=simple_dp3",
        "policy.down_dims=[16,32]",
        "policy.point_widths=[8,16,32]",
        "policy.encoder_output_dim=8",
        "policy.diffusion_step_embed_dim=16",
        "training.device=cpu",
        "training.num_workers=0",
    ]


SMALL_STATIC = FixedCamera(
    width=40,
    height=40,
    fov=10.0,
    near=0.01,
    far=10.0,
    look_from=STATIC_CAMERA.look_from,
    look_at=STATIC_CAMERA.look_at,
    up=STATIC_CAMERA.up,
)
SMALL_GRIPPER = Camera(width=16, height=16, fov=75.0, near=0.01, far=2.0)
# Of each episode the first and last frame; of each window these, its task and its sentence.
Split = tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int, str, str]]]
MakeCalvin = Callable[[Path, Mapping[str, Split]], Path]
RESET_JOINTS = (-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.553)


def _depth_of_table(camera: Camera, pose: np.ndarray) -> np.ndarray:
    """What the camera sees of a plane at the height of CALVIN's table (0.44 m), (H, W) float32."""
    x, y = rays(camera, PIXEL_CENTRE["tiny"])
    slope = pose[2, 0] * x[None] + pose[2, 1] * y[:, None] + pose[2, 2]
    with np.errstate(divide="ignore"):
        depth = (0.44 - pose[2, 3]) / slope
    return np.clip(np.where(slope < 0, depth, camera.far), camera.near, camera.far).astype("f4")


def _small_frame(
    number: int, robot_obs: np.ndarray, actions: np.ndarray, rel: np.ndarray
) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(number)
    frame = {
        "actions": actions,
        "rel_actions": rel,
        "robot_obs": robot_obs,
        "scene_obs": generator.normal(size=24),
    }
    poses = {
        "static": (SMALL_STATIC, SMALL_STATIC.world_from_optical()),
        "gripper": (SMALL_GRIPPER, gripper_camera_pose(robot_obs[7:14])),
    }
    for name, (camera, pose) in poses.items():
        size = (camera.height, camera.width)
        frame[f"rgb_{name}"] = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        frame[f"depth_{name}"] = _depth_of_table(camera, pose)
    return frame


@pytest.fixture(scope="session")
def make_calvin() -> MakeCalvin:
    """A maker of small CALVIN folders (images of 40 and 16 pixels, a bare table, a moving arm).

    ``make_calvin(root, {"training": ([(first, last), ...], [(start, end, task, sentence), ...])})``
    """

    def make(root: Path, splits: Mapping[str, Split]) -> Path:
        for name, (episodes, annotations) in splits.items():
            for first, last in episodes:
                generator = np.random.default_rng(first)
                robot_obs = np.zeros((last - first + 2, 15))
                robot_obs[:, 7:14] = RESET_JOINTS
                robot_obs[:, 7:14] += generator.normal(0, 0.004, (len(robot_obs), 7)).cumsum(0)
                robot_obs[:, :3] = tcp_pose(robot_obs[:, 7:14])[:, :3, 3]
                robot_obs[:, 14] = 1
                actions, relative = achieved_actions(robot_obs)
                for row, number in enumerate(range(first, last + 1)):
                    frame = _small_frame(number, robot_obs[row], actions[row], relative[row])
                    save_frame(root / name, number, frame)
            config = merged_config("tiny", static=SMALL_STATIC, gripper=SMALL_GRIPPER)
            rows = [Annotation(*row) for row in annotations]
            save_metadata(root / name, episodes, rows, config)
        return root

    return make
