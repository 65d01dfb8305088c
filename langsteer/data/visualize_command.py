"""The command ``langsteer-visualize``: look at a store, or check it.

Example::

    langsteer-visualize data/calvin.zarr --episodes 0 3 --output outputs/dataset.html
    langsteer-visualize data/calvin.zarr --check --source calvin_debug_dataset
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from langsteer.command_line import command_parser
from langsteer.data.dataset_page import write_page
from langsteer.data.inspection import check_store
from langsteer.data.store import open_store
from langsteer.errors import UserError, exits_cleanly


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the given arguments, by default those of the process."""
    options = _parser().parse_args(arguments)
    store = open_store(options.store)
    if options.check:
        problems = check_store(store, options.source)
        if problems:
            raise UserError(f"{store.path}: {len(problems)} problems\n  " + "\n  ".join(problems))
        names = ", ".join(map(str, options.source))
        against = f", equal to {names}" if names else ""
        print(
            f"{store.path}: good ({store.n_frames} frames, {len(store.episodes)} episodes{against})"
        )
        return
    write_page(store, options.episodes, options.output, options.max_frames)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB, open it in a browser")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write one HTML page that shows episodes of a store, or check the store.",
    )
    add = parser.add_argument
    add("store", type=Path, help="e.g. data/calvin_debug.zarr")
    add("--episodes", type=int, nargs="+", default=[0], metavar="K", help="which to show (0)")
    add("--output", type=Path, default=Path("outputs/dataset.html"), help="(%(default)s)")
    add("--max_frames", type=int, default=120, help="shown of each episode (%(default)s)")
    add("--check", action="store_true", help="verify every frame of the store instead")
    add(
        "--source",
        type=Path,
        nargs="+",
        default=(),
        metavar="CALVIN",
        help="with --check: compare with the dataset that it was made from, or with all of several",
    )
    return parser
