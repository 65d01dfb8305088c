"""Measure farthest point sampling against fpsample's fastest exact method, and compare the points.

    pip install 'fpsample<1'    # has wheels for Python 3.8 to 3.12
    python benchmarks/sampling.py --source /path/to/calvin_dataset

Both sample each camera's points in the box of a number of frames, one after the other in turns, so
that a machine that slows down slows both.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conversion import points_in_box
from langsteer.data.farthest_points import farthest_points

FRAMES, REPEATS, COUNT = 48, 7, 1024

Sampler = Callable[[NDArray[np.float32]], NDArray[np.integer]]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="a CALVIN folder")
    options = parser.parse_args()
    _, frames = points_in_box(options.source, FRAMES)
    samplers = {"langsteer": _ours} | _rival()
    print("| camera | points | " + " | ".join(f"{name}, ms" for name in samplers) + " | ratio |")
    print("|---" * (len(samplers) + 3) + "|")
    for camera, clouds in zip(("static", "gripper"), zip(*frames, strict=True), strict=True):
        _compare(samplers, clouds)
        times = _milliseconds(samplers, clouds)
        size = sum(len(points) for points in clouds) / len(clouds)
        row = " | ".join(f"{value:.2f}" for value in times.values())
        ratio = times.get("fpsample", np.nan) / times["langsteer"]
        print(f"| {camera} | {size:.0f} | {row} | {ratio:.1f} |")


def _ours(points: NDArray[np.float32]) -> NDArray[np.integer]:
    return farthest_points(points, COUNT)


def _rival() -> dict[str, Sampler]:
    """fpsample's sampler, if it is installed."""
    try:
        import fpsample
    except ImportError:
        print("fpsample is not installed, so there is nothing to compare with")
        return {}
    return {
        "fpsample": lambda points: fpsample.bucket_fps_kdline_sampling(
            points, COUNT, h=6, start_idx=0
        )
    }


def _compare(samplers: dict[str, Sampler], clouds: tuple[NDArray[np.float32], ...]) -> None:
    """Raise AssertionError unless all take the same points in the same order; compile, too."""
    for points in clouds:
        first, *others = (sampler(points) for sampler in samplers.values())
        for other in others:
            np.testing.assert_array_equal(first, other)


def _milliseconds(
    samplers: dict[str, Sampler], clouds: tuple[NDArray[np.float32], ...]
) -> dict[str, float]:
    """Processor time of a cloud, the median of the repeats."""
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(REPEATS):
        for name, sampler in samplers.items():
            began = time.process_time()
            for points in clouds:
                sampler(points)
            times[name].append((time.process_time() - began) / len(clouds))
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


if __name__ == "__main__":
    main()
