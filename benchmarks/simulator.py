"""Speed of the simulator: states only, both cameras each step, and as a policy uses it.

One core, from the repository's root (a few minutes at most)::

    python benchmarks/simulator.py                            # the built-in scene
    python benchmarks/simulator.py --assets_path CALVIN_ENV   # scene D
    python benchmarks/simulator.py --assets_path CALVIN_ENV --reference CALVIN_ENV

``CALVIN_ENV`` is a checkout of mees/calvin_env. ``--reference`` runs its own simulator beside ours,
in this process and with the same actions (it needs gym, opencv, scipy, gitpython and
numpy-quaternion installed, and a checkout that git knows). "As a policy uses it": chunks of eight
actions, an observation after each of the last two.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from langsteer.envs.calvin_env import CalvinEnv

CAMERAS = ("static", "gripper")
CHUNK = 8
OBSERVED = 2
REPEATS = 3


def actions(count: int) -> np.ndarray:
    """Random relative actions (count, 7), always the same."""
    rng = np.random.default_rng(0)
    gripper = np.where(rng.uniform(size=(count, 1)) < 0.5, -1.0, 1.0)
    return np.concatenate([rng.uniform(-1, 1, (count, 6)), gripper], axis=1)


def steps_per_second(
    reset: Callable[[], Any], step: Callable[[int, np.ndarray], Any], count: int
) -> float:
    """The best of a few runs of ``count`` steps, each from a reset that is not timed."""
    best = 0.0
    for _ in range(REPEATS):
        reset()
        start = time.perf_counter()
        for index, action in enumerate(actions(count)):
            step(index, action)
        best = max(best, count / (time.perf_counter() - start))
    return best


def is_observed(index: int) -> bool:
    """Whether a policy with chunks of eight looks after step ``index``."""
    return index % CHUNK >= CHUNK - OBSERVED


def measure_ours(scene: str, assets_path: Path | None) -> dict[str, float]:
    """Steps per second of our environment, by use."""
    found = {}
    env = CalvinEnv(scene, assets_path, renderer="depth")

    def reset() -> None:
        env.reset(seed=0)

    def bare(index: int, action: np.ndarray) -> None:
        env.step(action)

    def judged(index: int, action: np.ndarray) -> None:
        env.step(action)
        env.info()

    def with_depth(index: int, action: np.ndarray) -> None:
        env.step(action)
        if is_observed(index):
            for name in env.pipeline.cameras:
                env.render_depth(name)

    def with_cloud(index: int, action: np.ndarray) -> None:
        env.step(action)
        if is_observed(index):
            env.observe(point_cloud=True)

    reset()
    env.observe(point_cloud=True)  # compiles, reads the meshes
    found["states only"] = steps_per_second(reset, bare, 600)
    found["states and the oracle's snapshot"] = steps_per_second(reset, judged, 600)
    found["as a policy: depth of two steps in eight"] = steps_per_second(reset, with_depth, 400)
    found["as a policy: point cloud of two in eight"] = steps_per_second(reset, with_cloud, 400)
    start = time.perf_counter()
    for _ in range(10):
        env.reset()
    found["resets"] = 10 / (time.perf_counter() - start)
    env.close()
    tiny = CalvinEnv(scene, assets_path, renderer="tiny")
    found["both cameras each step, TinyRenderer"] = steps_per_second(
        lambda: tiny.reset(seed=0),
        lambda index, action: (tiny.step(action), tiny.observe(cameras=CAMERAS)),
        30,
    )
    tiny.close()
    return found


def measure_reference(checkout: Path) -> dict[str, float]:
    """Steps per second of calvin_env itself in scene D, which draws what it has at every step."""
    sys.path.insert(0, str(checkout))
    import hydra
    from omegaconf import OmegaConf

    conf = checkout / "conf"
    config = OmegaConf.create(
        {
            "data_path": str(checkout / "data"),
            "use_vr": False,
            "scene": OmegaConf.load(conf / "scene" / "calvin_scene_D.yaml"),
            "robot": OmegaConf.merge(
                OmegaConf.load(conf / "robot" / "panda.yaml"),
                OmegaConf.load(conf / "robot" / "panda_longer_finger.yaml"),
            ),
            "cameras": {
                name: OmegaConf.load(conf / "cameras" / "cameras" / f"{name}.yaml")
                for name in CAMERAS
            },
            "env": OmegaConf.load(conf / "env" / "play_table_env.yaml"),
        }
    )
    del config.robot.defaults
    config.env.use_egl = False
    env = hydra.utils.instantiate(config.env, use_scene_info=True)
    cameras, found = env.cameras, {}

    def step(index: int, action: np.ndarray) -> None:
        env.step(action)

    found["both cameras each step, TinyRenderer"] = steps_per_second(env.reset, step, 30)
    env.cameras = []
    # Its step always takes the oracle's snapshot.
    found["states and the oracle's snapshot"] = steps_per_second(env.reset, step, 600)
    found["states only"] = found["states and the oracle's snapshot"]

    def as_policy(index: int, action: np.ndarray) -> None:
        env.cameras = cameras if is_observed(index) else []
        env.step(action)

    found["as a policy: depth of two steps in eight"] = steps_per_second(env.reset, as_policy, 40)
    env.cameras = []
    found["resets"] = 1.0 / min(_seconds(env.reset) for _ in range(10))
    env.close()
    env.ownsPhysicsClient = False  # its destructor would close another world
    return found


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Speed of the simulator.")
    parser.add_argument("--assets_path", type=Path, help="a checkout of calvin_env: scene D")
    parser.add_argument("--reference", type=Path, help="a checkout whose own simulator is run too")
    arguments = parser.parse_args()
    scene = "builtin" if arguments.assets_path is None else "D"
    reference = {} if arguments.reference is None else measure_reference(arguments.reference)
    ours = measure_ours(scene, arguments.assets_path)
    print(f"\n| scene {scene}, a second | calvin_env | LangSteer | ratio |\n|---|---|---|---|")
    for use, rate in ours.items():
        theirs = reference.get(use)
        beside = f"{theirs:.1f} | {rate:.1f} | {rate / theirs:.1f}" if theirs else f"| {rate:.1f} |"
        print(f"| {use} | {beside} |")


if __name__ == "__main__":
    main()
