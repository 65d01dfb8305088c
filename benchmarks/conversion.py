"""Measure the conversion: against its floor, a plain NumPy route, and itself with more workers.

    python benchmarks/conversion.py --source /path/to/calvin_dataset [--frames 6144]

The floor is what no converter can go below with these libraries: reading the arrays of each frame
with NumPy and farthest point sampling of the points in the box with the fastest exact sampler
(benchmarks/sampling.py).
The plain route is the usual script: NumPy for everything, a loop for the sampling, lists that are
stacked at the end. The dataset's frames are repeated (as hard links) to the number asked for.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.calvin.dataset import CONFIG, RANGES, frame_name, open_dataset, read_frame
from langsteer.calvin.kinematics import JOINTS, gripper_camera_pose
from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.farthest_points import farthest_points
from langsteer.data.plan import make_plan
from langsteer.data.pointcloud import ObservationPipeline

ARRAYS = ["rel_actions", "robot_obs"]
ARRAYS += [f"{kind}_{camera}" for camera in ("static", "gripper") for kind in ("rgb", "depth")]
PLAIN_FRAMES = 12
FLOOR_FRAMES = 256


def main() -> None:
    """Run all measurements and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="a CALVIN folder")
    parser.add_argument("--frames", type=int, default=6144)
    parser.add_argument("--scratch", type=Path, help="folder for temporary data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        small = repeat_frames(options.source, folder / "small", options.frames // 4)
        large = repeat_frames(options.source, folder / "large", options.frames)
        _report(small, large, folder)


def _report(small: Path, large: Path, folder: Path) -> None:
    paths, clouds = points_in_box(small, FLOOR_FRAMES)
    # One after the other several times, so that a machine that slows down slows all of them.
    floors = [rate(lambda: floor(paths, clouds), len(paths))]
    whole, peak_small = in_process(small, folder / "a.zarr", 1, ())
    floors.append(rate(lambda: floor(paths, clouds), len(paths)))
    one, peak_large = in_process(large, folder / "b.zarr", 1, ())
    bare, _ = in_process(large, folder / "c.zarr", 1, ("img", "depth"))
    two, _ = in_process(large, folder / "d.zarr", 2, ())
    floors.append(rate(lambda: floor(paths, clouds), len(paths)))
    plain = rate(lambda: plain_route(paths[:PLAIN_FRAMES]), PLAIN_FRAMES)
    base = sum(floors) / len(floors)
    rows = [
        ("floor: numpy.load + sampling", base),
        ("plain NumPy route", plain),
        ("langsteer, one worker", one),
        ("langsteer, one worker, N/4 frames", whole),
        ("langsteer, one worker, --skip img depth", bare),
        ("langsteer, two workers", two),
    ]
    print("| what | frames/s | time against the floor |\n|---|---|---|")
    for name, speed in rows:
        print(f"| {name} | {speed:.1f} | {base / speed:.2f} |")
    print(f"floor, each time: {', '.join(f'{value:.0f}' for value in floors)} frames/s")
    print(f"against the plain route: {one / plain:.0f} times; two workers: {two / one:.2f} times")
    print(f"peak memory with N/4 and N frames: {peak_small:.0f} and {peak_large:.0f} MB")
    for name in ("b", "c"):
        size = sum(f.stat().st_size for f in (folder / f"{name}.zarr").rglob("*") if f.is_file())
        print(f"{name}.zarr: {size / make_plan(large, settings()).n_frames / 1e3:.1f} kB a frame")


def settings(skip: tuple[str, ...] = ()) -> ConversionSettings:
    """Whole recordings, so that each frame is converted once; full shards as in a large store."""
    return ConversionSettings(episodes="play", skip=skip, frames_per_shard=1024)


def repeat_frames(source: Path, target: Path, count: int) -> Path:
    """A dataset of one recording of ``count`` frames that are links to those of ``source``."""
    split = open_dataset(source)[0]
    frames = sorted(split.folder.glob("episode_*.npz"))
    folder = target / "training"
    (folder / CONFIG).parent.mkdir(parents=True)
    shutil.copy(split.folder / CONFIG, folder / CONFIG)
    np.save(folder / RANGES, np.array([[0, count - 1]]))
    for number in range(count):
        path = folder / frame_name(number)
        try:
            os.link(frames[number % len(frames)], path)
        except OSError:
            shutil.copy(frames[number % len(frames)], path)
    return target


def points_in_box(root: Path, count: int) -> tuple[list[Path], list[list[NDArray[np.float32]]]]:
    """Files of frames, and the points in the box of both cameras for each."""
    plan = make_plan(root, settings())
    paths, clouds = [], []
    for source in plan.sources(range(min(count, plan.n_frames))):
        path = source.split.frame_path(source.number)
        frame = read_frame(path, ARRAYS, source.split.config)
        paths.append(path)
        clouds.append([cloud.astype(np.float32) for cloud, _ in in_box(frame, plan.pipeline)])
    return paths, clouds


def in_box(
    frame: dict[str, NDArray], pipeline: ObservationPipeline
) -> list[tuple[NDArray[np.float64], NDArray[np.uint8]]]:
    """Points and colours of both cameras in the box, written plainly."""
    cameras = {
        "static": (pipeline.static, pipeline.static.world_from_optical()),
        "gripper": (pipeline.gripper, gripper_camera_pose(frame["robot_obs"][JOINTS])),
    }
    result = []
    for name, (camera, pose) in cameras.items():
        v, u = np.mgrid[: camera.height, : camera.width]
        u, v = u + pipeline.pixel_centre[0], v + pipeline.pixel_centre[1]
        depth = frame[f"depth_{name}"].astype(np.float64)
        x, y = ((p - c) / camera.focal for p, c in zip((u, v), camera.centre, strict=True))
        points = np.stack([x * depth, y * depth, depth, np.ones_like(depth)], axis=-1) @ pose.T
        points, colours = points[..., :3], frame[f"rgb_{name}"]
        if name == "static":
            edge = (camera.width - pipeline.static_crop) // 2
            points, colours = (a[edge:-edge, edge:-edge] for a in (points, colours))
        points, colours = points.reshape(-1, 3), colours.reshape(-1, 3)
        low, high = np.array(pipeline.box).T
        inside = ((points >= low) & (points <= high)).all(axis=1)
        result.append((points[inside], colours[inside]))
    return result


def floor(paths: list[Path], clouds: list[list[NDArray[np.float32]]]) -> None:
    """Read the needed arrays and sample points that are there already; keep nothing."""
    for path, parts in zip(paths, clouds, strict=True):
        with np.load(path) as file:
            for name in ARRAYS:
                file[name]
        for points in parts:
            farthest_points(points, 1024)


def plain_route(paths: list[Path]) -> None:
    """Convert as a script without any care does: all arrays, a sampling loop, lists, one stack."""
    plan = make_plan(paths[0].parents[1], settings())
    clouds, images, depths, states, actions = [], [], [], [], []
    for path in paths:
        with np.load(path) as file:
            frame = {name: file[name] for name in file.files}
        parts = []
        for points, colours in in_box(frame, plan.pipeline):
            chosen = _sampling_loop(points, 1024)
            parts.append(np.concatenate([points[chosen], colours[chosen] / 255], axis=1))
        clouds.append(np.concatenate(parts))
        images.append(frame["rgb_static"][20:180, 20:180])
        depths.append(frame["depth_static"][20:180, 20:180])
        states.append(frame["robot_obs"])
        actions.append(frame["rel_actions"])
    with tempfile.TemporaryFile() as file:
        np.savez(file, *(np.stack(rows) for rows in (clouds, images, depths, states, actions)))


def _sampling_loop(points: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Farthest point sampling as it is usually written."""
    chosen = np.zeros(count, dtype=np.intp)
    nearest = np.full(len(points), np.inf)
    for index in range(1, count):
        distance = np.sum((points - points[chosen[index - 1]]) ** 2, axis=1)
        nearest = np.minimum(nearest, distance)
        chosen[index] = np.argmax(nearest)
    return chosen


def rate(work: Callable[[], None], frames: int) -> float:
    """Frames per second of ``work``."""
    began = time.perf_counter()
    work()
    return frames / (time.perf_counter() - began)


def in_process(root: Path, path: Path, workers: int, skip: tuple[str, ...]) -> tuple[float, float]:
    """Frames/s and peak memory (MB) of a conversion in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_conversion, root, path, workers, skip).result()


def _conversion(root: Path, path: Path, workers: int, skip: tuple[str, ...]) -> tuple[float, float]:
    summary = convert(root, path, settings(skip), num_workers=workers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return summary.frames / summary.seconds, peak


if __name__ == "__main__":
    main()
