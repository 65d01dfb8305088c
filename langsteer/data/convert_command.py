"""The command ``langsteer-convert``: a CALVIN folder, or its zip, becomes a Zarr store.

Example::

    langsteer-convert --root_dir calvin_debug_dataset --save_path data/debug.zarr
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from langsteer.command_line import command_parser
from langsteer.data.conversion import ConversionSummary, convert, dry_run
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.pointcloud import CAMERAS, WORKSPACE, Box
from langsteer.data.store import SPLITS, Store
from langsteer.data.windows import EPISODE_KINDS
from langsteer.errors import exits_cleanly
from langsteer.resumable import Share

_MOST_LINES = 20


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the given arguments, by default those of the process."""
    options = _parser().parse_args(arguments)
    settings = ConversionSettings(
        episodes=options.episodes,
        splits=options.splits,
        tasks=options.tasks,
        max_episodes=options.max_episodes,
        skip=options.skip,
        n_points=options.num_points,
        box=_box(options.box),
        cameras=options.cameras,
        static_crop=options.crop,
        frames_per_shard=options.frames_per_file,
    )
    share = Share.parse(options.shard, "--shard ")
    if options.dry_run:
        plan = dry_run(options.root_dir, options.save_path, settings)
        print(f"would convert {plan.n_frames} frames in {plan.n_shards} parts; nothing was written")
        return
    summary = convert(
        options.root_dir,
        options.save_path,
        settings,
        overwrite=options.overwrite,
        num_workers=options.num_workers,
        share=share,
        strict=options.strict,
    )
    print(describe(summary))


def describe(summary: ConversionSummary) -> str:
    """The summary as text."""
    rate = summary.frames / summary.seconds if summary.frames else 0.0
    lines = [f"{summary.frames} frames converted in {summary.seconds:.1f} s ({rate:.0f} frames/s)"]
    if summary.store is None:
        lines.append(
            f"{summary.path}: {summary.shards_missing} parts are left to other jobs; the last one "
            "completes the store"
        )
    else:
        lines += _describe_store(summary.store)
    if summary.left_out:
        lines.append(f"left out: {len(summary.left_out)} episodes")
        lines += [f"  {entry}" for entry in summary.left_out[:_MOST_LINES]]
        if len(summary.left_out) > _MOST_LINES:
            lines.append("  ... all of them are in the store's attributes (zarr.json)")
    return "\n".join(lines)


def _describe_store(store: Store) -> list[str]:
    """Frames, episodes, tasks and bytes of a store."""
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    splits = Counter(store.episodes.split.tolist())
    tasks = Counter(task for task in store.episodes.task.tolist() if task)
    parts = ", ".join(f"{count} {split}" for split, count in sorted(splits.items()))
    lines = [
        f"{store.path}: {store.n_frames} frames of {store.n_points} points, "
        f"{len(store.episodes)} episodes ({parts})",
        f"  {size / 1e6:.1f} MB, {size / store.n_frames / 1e3:.1f} kB a frame",
    ]
    if tasks:
        listing = ", ".join(f"{task} {count}" for task, count in sorted(tasks.items()))
        lines.append(f"  {len(tasks)} tasks: {listing}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Convert a CALVIN dataset to a Zarr store. Interrupted, the same command goes "
        "on where it stopped.",
    )
    add = parser.add_argument
    add(
        "--root_dir",
        type=Path,
        nargs="+",
        required=True,
        help="folder with training/ and validation/, or the zip of one, read where it lies; "
        "several are mixed into one store",
    )
    add("--save_path", type=Path, required=True, help="the store to make, e.g. data/calvin.zarr")
    add("--overwrite", action="store_true", help="replace a store when the new one is complete")
    add(
        "--episodes",
        choices=EPISODE_KINDS,
        default="language",
        help="annotated windows (default), whole recordings, or these with the task they show",
    )
    add("--splits", nargs="+", choices=SPLITS, help="default: those that are there")
    add("--tasks", nargs="+", metavar="TASK", help="only these, e.g. open_drawer")
    add("--max_episodes", type=int, metavar="K")
    add("--skip", nargs="+", choices=("img", "depth"), default=[], help="arrays to leave out")
    add("--num_points", type=int, default=2048, help="points of a cloud (2048)")
    add("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS, help="of the point cloud")
    add(
        "--box",
        nargs=6,
        type=float,
        metavar=("X0", "X1", "Y0", "Y1", "Z0", "Z1"),
        default=[bound for interval in WORKSPACE for bound in interval],
        help="workspace that the cloud is cropped to, metres (%(default)s)",
    )
    add("--crop", type=int, default=160, help="side of the static image's central part (160)")
    add("--num_workers", type=int, metavar="K", help="processes (one for each core, 8 at most)")
    add(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="this is job I of N, from 0, that fill one store together",
    )
    add("--frames_per_file", type=int, metavar="K", help="(up to 1024, by the store's size)")
    add("--dry_run", action="store_true", help="check dataset and disk, write nothing")
    add("--strict", action="store_true", help="stop at the first bad episode")
    return parser


def _box(bounds: Sequence[float]) -> Box:
    x0, x1, y0, y1, z0, z1 = bounds
    return (x0, x1), (y0, y1), (z0, z1)
