"""Our depth renderer beside TinyRenderer: time and agreement, in one run on one core.

    python benchmarks/depth_renderer.py                            # the built-in scene
    python benchmarks/depth_renderer.py --assets_path CALVIN_ENV   # scene D, a calvin_env checkout

Medians over states along a random walk of the robot. The static camera is drawn as a policy uses
it, its central 160 x 160 pixels, where TinyRenderer can draw the whole 200 x 200 only. Depth is
compared at TinyRenderer's pixel centres, away from silhouettes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from langsteer.calvin.cameras import PIXEL_CENTRE, centre_crop
from langsteer.envs.calvin_env import CalvinEnv

T = TypeVar("T")

STATES = 8
STEPS_BETWEEN = 20
REPEATS = 20
SILHOUETTE = 0.05
CROPS = {"static": 160, "gripper": None}


def milliseconds(call: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result of ``call`` and the median time of ``repeats`` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return result, 1000 * float(np.median(times))


def smooth(depth: np.ndarray) -> np.ndarray:
    """Which pixels lie away from silhouettes: depth changes little around them."""
    around = sliding_window_view(np.pad(depth, 1, mode="edge"), (3, 3))
    return around.max((2, 3)) - around.min((2, 3)) < SILHOUETTE


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="The depth renderer beside TinyRenderer.")
    parser.add_argument("--assets_path", type=Path, help="a checkout of calvin_env: scene D")
    arguments = parser.parse_args()
    scene = "builtin" if arguments.assets_path is None else "D"
    depth_env = CalvinEnv(scene, arguments.assets_path, renderer="depth")
    tiny_env = CalvinEnv(scene, arguments.assets_path, renderer="tiny")
    depth_env._renderer.pixel_centre = PIXEL_CENTRE["tiny"]
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    depth_env.render_depth("gripper")
    first = time.perf_counter() - start
    times: dict[tuple[str, str], list[float]] = {}
    errors: dict[str, list[np.ndarray]] = {}
    for env in (depth_env, tiny_env):
        env.reset(seed=0)
    for _ in range(STATES):
        drift = rng.uniform(-0.7, 0.7, 3)
        for _ in range(STEPS_BETWEEN):
            action = [*drift, *rng.uniform(-0.5, 0.5, 3), 1]
            depth_env.step(action)
            tiny_env.step(action)
        for name, crop in CROPS.items():
            view = depth_env.view(name)
            draw = partial(depth_env._renderer.render_depth, view, crop)
            found, ours = milliseconds(draw, REPEATS)
            expected, theirs = milliseconds(partial(tiny_env.render_depth, name), 3)
            if crop is not None:
                expected = centre_crop(expected, view.camera, crop)
            times.setdefault((name, "ours"), []).append(ours)
            times.setdefault((name, "tiny"), []).append(theirs)
            errors.setdefault(name, []).append(np.abs(found - expected)[smooth(expected)])
    for env in (depth_env, tiny_env):
        env.close()
    print(f"\nscene {scene}; the first image of a process: {first:.2f} s")
    print("| camera | TinyRenderer ms | ours ms | ratio | error median / 99 %, mm |")
    print("|---|---|---|---|---|")
    for name in CROPS:
        ours, theirs = (float(np.median(times[name, who])) for who in ("ours", "tiny"))
        median, high = np.percentile(np.concatenate(errors[name]) * 1000, (50, 99))
        print(
            f"| {name} | {theirs:.1f} | {ours:.2f} | {theirs / ours:.0f} "
            f"| {median:.3f} / {high:.3f} |"
        )


if __name__ == "__main__":
    main()
