"""The command ``langsteer-quickstart``: the main job from nothing, and what to look at then.

Example::

    langsteer-quickstart --folder outputs/quickstart
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from langsteer.command_line import called_as
from langsteer.errors import exits_cleanly


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/quickstart.py`` and ``langsteer-quickstart``."""
    parser = argparse.ArgumentParser(
        prog=called_as(), description="From nothing to a video of a robot that opens a drawer."
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/quickstart"))
    options = parser.parse_args(arguments)
    from langsteer.quickstart import quickstart  # PyTorch, which help does without

    begun = time.perf_counter()
    outcome = quickstart(options.folder)
    summary = outcome.summary
    print(f"\nAsked to open the drawer, it did in {summary.rate}.")
    print("\n".join(summary.lines()))
    print(f"videos:  {summary.folder / 'episodes'}/0000.mp4 ...")
    print(f"one scene, two sentences: {options.folder / 'two_sentences.gif'}")
    print(f"all in {(time.perf_counter() - begun) / 60:.1f} minutes")
