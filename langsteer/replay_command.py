"""The command ``langsteer-replay``: replay a dataset's annotated windows in the simulator.

Example::

    langsteer-replay data/demos --splits validation --video outputs/replay.mp4
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from langsteer.calvin.dataset import SPLITS, BadFrameError, open_dataset, read_annotations
from langsteer.command_line import command_parser
from langsteer.envs.scene import SCENES
from langsteer.envs.scene_config import ASSETS_VARIABLE
from langsteer.errors import UserError, exits_cleanly


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the given arguments, by default those of the process."""
    options = _parser().parse_args(arguments)
    # Here, since help needs no simulator.
    from langsteer.experts.filming import filming
    from langsteer.experts.replay import replay_all, table

    chosen = [
        (split, annotation)
        for split in open_dataset(options.dataset, options.splits)
        for annotation in read_annotations(split)
        if options.tasks is None or annotation.task in options.tasks
    ][: options.max_windows]
    if not chosen:
        raise UserError(f"{options.dataset}: no annotated window of the kind asked for")
    try:
        with filming(options.video) as video:
            results = replay_all(chosen, options.scene, options.assets_path, video)
    except BadFrameError as error:
        raise UserError(f"{error}; a window is replayed only where all its frames are") from error
    print("\n".join(table(results)))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Replay a CALVIN dataset's annotated windows in the simulator and say whether "
        "the oracle sees their tasks done.",
    )
    add = parser.add_argument
    add("dataset", type=Path, help="folder with training/ and validation/")
    add("--splits", nargs="+", choices=SPLITS, help="default: those that are there")
    add("--tasks", nargs="+", metavar="TASK", help="only these")
    add("--max_windows", type=int, metavar="K", help="only the first K")
    add("--scene", choices=SCENES, help="default: what the dataset says")
    add("--assets_path", type=Path, help=f"calvin_env, for scenes A-D (${ASSETS_VARIABLE})")
    add("--video", type=Path, metavar="FILE.mp4", help="film the replays")
    return parser
