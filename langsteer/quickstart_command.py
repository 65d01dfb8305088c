"""The command ``langsteer-quickstart``: the main job from nothing, and what to look at then.

Example::

    langsteer-quickstart --folder outputs/quickstart
"""

import time
from collections.abc import Sequence
from pathlib import Path

from langsteer.command_line import command_parser
from langsteer.errors import exits_cleanly


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/quickstart.py`` and ``langsteer-quickstart``."""
    parser = command_parser("From nothing to a video of a robot that opens a drawer.")
    parser.add_argument("--folder", type=Path, default=Path("outputs/quickstart"))
    options = parser.parse_args(arguments)
    from langsteer.quickstart import quickstart  # PyTorch, which help does without
    from langsteer.quickstart_page import write_page

    begun = time.perf_counter()
    outcome = quickstart(options.folder)
    seconds = time.perf_counter() - begun
    page = write_page(options.folder, outcome, seconds)
    print(f"\nAsked to open the drawer, it did in {outcome.summary.rate}.")
    print(f"all in {seconds / 60:.1f} minutes; videos, rates and curves are on one page, open")
    print(page.resolve().as_uri())
