"""The commands ``langsteer-export-lerobot`` and ``langsteer-import-lerobot``.

Example::

    langsteer-export-lerobot --source task_D_D --save_path data/calvin_lerobot
    langsteer-import-lerobot --source data/calvin_lerobot --save_path calvin_again
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langsteer.command_line import command_parser
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.plan import is_harmless, make_plan
from langsteer.data.store import SPLITS, is_store
from langsteer.data.windows import EPISODE_KINDS
from langsteer.errors import UserError, exits_cleanly

if TYPE_CHECKING:
    from langsteer.data.lerobot_sources import Source


@exits_cleanly
def export_main(arguments: Sequence[str] | None = None) -> None:
    """``langsteer-export-lerobot`` with the given arguments, by default the process's."""
    options = _export_parser().parse_args(arguments)
    from langsteer.data.lerobot_export import export  # needs an extra, which help does without

    done = export(_source(options), options.save_path, options.overwrite, options.num_workers)
    print(f"{done.path}: {done.frames} frames in {done.episodes} episodes")


@exits_cleanly
def import_main(arguments: Sequence[str] | None = None) -> None:
    """``langsteer-import-lerobot`` with the given arguments, by default the process's."""
    options = _import_parser().parse_args(arguments)
    from langsteer.data.lerobot_features import parse
    from langsteer.data.lerobot_import import import_dataset

    named = parse(options.features)
    frames = import_dataset(options.source, options.save_path, named, options.cameras)
    print(
        f"{options.save_path}: {frames} frames in CALVIN's format; convert_calvin_to_zarr.py "
        "--root_dir makes a store of them (--cameras static without a gripper camera)"
    )


def _source(options: argparse.Namespace) -> "Source":
    """The frames that the options name."""
    from langsteer.data.lerobot_sources import CalvinSource, StoreSource

    if is_store(options.source):
        if options.splits or options.tasks or options.max_episodes or options.episodes:
            raise UserError(
                "--splits, --tasks, --max_episodes and --episodes choose from a CALVIN folder; a "
                "store is exported whole"
            )
        return StoreSource(options.source, options.clouds)
    settings = ConversionSettings(
        episodes=options.episodes or EPISODE_KINDS[0],
        splits=options.splits,
        tasks=options.tasks,
        max_episodes=options.max_episodes,
    )
    plan = make_plan(options.source, settings)
    for entry in plan.left_out:
        if not is_harmless(entry):
            print(f"left out: {entry}")
    return CalvinSource(plan, options.clouds)


def _export_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write a LeRobot dataset v3.0: colours, depth in metres, state, relative "
        "actions, sentences. Interrupted, the same command goes on where it stopped.",
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="a CALVIN folder, its zip, or a store")
    add("--save_path", type=Path, required=True, help="the folder to make")
    add("--clouds", action="store_true", help="write point clouds, too: (2048, 3) metres")
    add("--episodes", choices=EPISODE_KINDS, help="as of convert_calvin_to_zarr.py")
    add("--splits", nargs="+", choices=SPLITS, help="default: those that are there")
    add("--tasks", nargs="+", metavar="TASK", help="only these, e.g. open_drawer")
    add("--max_episodes", type=int, metavar="K")
    add("--num_workers", type=int, metavar="K", help="processes (one for each core, 8 at most)")
    add("--overwrite", action="store_true", help="replace a LeRobot dataset, once complete")
    return parser


def _import_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Make a CALVIN folder of a LeRobot dataset v3.0 with depth: of "
        "langsteer-export-lerobot's as it is, of others with the names of their features.",
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="the LeRobot dataset")
    add("--save_path", type=Path, required=True, help="the folder to make")
    add(
        "--features",
        nargs="+",
        default=[],
        metavar="NAME=KEY",
        help="e.g. rgb_static=observation.images.top; docs/integrations.md lists the names",
    )
    add("--cameras", type=Path, metavar="FILE", help="CALVIN's merged_config.yaml of the images")
    return parser
