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
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from langsteer.envs.calvin_env import CalvinEnv

CAMERAS = ("static", "gripper")
CHUNK = 8
OBSERVED = 2
REPEATS = 5

STATES = "states only"
JUDGED = "states and the oracle's snapshot"
DEPTH = "as a policy: depth of two steps in eight"
CLOUD = "as a policy: point cloud of two in eight"
RESETS = "resets"
DRAWN = "both cameras each step, TinyRenderer"


def actions(count: int) -> np.ndarray:
    """Random relative actions (count, 7), always the same."""
    rng = np.random.default_rng(0)
    gripper = np.where(rng.uniform(size=(count, 1)) < 0.5, -1.0, 1.0)
    return np.concatenate([rng.uniform(-1, 1, (count, 6)), gripper], axis=1)


@dataclass(frozen=True)
class Case:
    """One way of using an environment: ``step`` is timed ``count`` times after a ``reset``."""

    reset: Callable[[], Any]
    step: Callable[[int, np.ndarray], Any]
    count: int

    def rate(self) -> float:
        """Steps a second of one run."""
        self.reset()
        start = time.perf_counter()
        for index, action in enumerate(actions(self.count)):
            self.step(index, action)
        return self.count / (time.perf_counter() - start)


def is_observed(index: int) -> bool:
    """Whether a policy with chunks of eight looks after step ``index``."""
    return index % CHUNK >= CHUNK - OBSERVED


def our_cases(scene: str, assets_path: Path | None) -> dict[str, Case]:
    """The ways of using our environment, by name."""
    env = CalvinEnv(scene, assets_path, renderer="depth")
    tiny = CalvinEnv(scene, assets_path, renderer="tiny")
    env.reset(seed=0)
    env.observe(point_cloud=True)  # compiles, reads the meshes

    def reset() -> None:
        env.reset(seed=0)

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

    def drawn(index: int, action: np.ndarray) -> None:
        tiny.step(action)
        tiny.observe(cameras=CAMERAS)

    return {
        STATES: Case(reset, lambda index, action: env.step(action), 300),
        JUDGED: Case(reset, judged, 300),
        DEPTH: Case(reset, with_depth, 160),
        CLOUD: Case(reset, with_cloud, 160),
        RESETS: Case(reset, lambda index, action: env.reset(), 10),
        DRAWN: Case(lambda: tiny.reset(seed=0), drawn, 16),
    }


def reference_cases(checkout: Path) -> dict[str, Case]:
    """The same with calvin_env itself in scene D, which draws what cameras it has at every step."""
    env = reference_env(checkout)
    cameras = env.cameras

    def reset() -> None:
        env.cameras = []
        env.reset()

    def as_policy(index: int, action: np.ndarray) -> None:
        env.cameras = cameras if is_observed(index) else []
        env.step(action)

    def drawn(index: int, action: np.ndarray) -> None:
        env.cameras = cameras
        env.step(action)

    judged = Case(reset, lambda index, action: env.step(action), 300)
    return {
        STATES: judged,  # its step always takes the oracle's snapshot
        JUDGED: judged,
        DEPTH: Case(reset, as_policy, 40),
        RESETS: Case(reset, lambda index, action: env.reset(), 10),
        DRAWN: Case(reset, drawn, 16),
    }


def reference_env(checkout: Path) -> Any:  # noqa: ANN401
    """calvin_env's own environment: scene D, TinyRenderer."""
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
    return hydra.utils.instantiate(config.env, use_scene_info=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Speed of the simulator.")
    parser.add_argument("--assets_path", type=Path, help="a checkout of calvin_env: scene D")
    parser.add_argument("--reference", type=Path, help="a checkout whose own simulator is run too")
    arguments = parser.parse_args()
    scene = "builtin" if arguments.assets_path is None else "D"
    # calvin_env first: part of its robot acts on client 0, whoever that is.
    theirs = {} if arguments.reference is None else reference_cases(arguments.reference)
    ours = our_cases(scene, arguments.assets_path)
    print(f"\n| scene {scene}, a second | calvin_env | LangSteer | ratio |\n|---|---|---|---|")
    for use, case in ours.items():
        # In turns, so that both meet the same neighbours on a shared machine.
        pairs = [(theirs[use].rate() if use in theirs else 0, case.rate()) for _ in range(REPEATS)]
        rate_theirs, rate = (max(rates) for rates in zip(*pairs, strict=True))
        beside = f"{rate_theirs:.1f} | {rate:.1f} | {rate / rate_theirs:.2f}" if rate_theirs else ""
        print(f"| {use} | {beside or f'| {rate:.1f} |'} |", flush=True)
    sys.stdout.flush()
    os._exit(0)  # calvin_env's destructor would disconnect client 0 twice, noisily


if __name__ == "__main__":
    main()
