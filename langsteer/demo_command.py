"""The command ``langsteer-demo``: tell the policy that comes with LangSteer what to do.

Example::

    langsteer-demo 'push the blue block to the right'
"""

import argparse
import time
from collections.abc import Sequence

from langsteer.command_line import command_parser
from langsteer.envs.scene import BUILTIN, SCENES
from langsteer.errors import exits_cleanly

SENTENCE = "push the blue block to the right"


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/demo.py`` and ``langsteer-demo``."""
    options = _parser().parse_args(arguments)
    from langsteer.demo import demo  # PyTorch, which help does without

    begun = time.perf_counter()
    summary = demo(options.sentence, options.tries, options.scene, options.seed)
    task = summary.episodes[0]["task"]
    print(f"\n\u201c{options.sentence}\u201d means {task}: done in {summary.rate}.")
    for episode in summary.episodes:
        video = summary.folder / "episodes" / f"{episode['episode']:04d}.mp4"
        print(f"{'done    ' if episode['success'] else 'not done'}  {video}")
    print(f"report:   {summary.folder / 'report.html'}")
    print(f"{time.perf_counter() - begun:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Tell the policy that comes with LangSteer what to do, and watch it try.",
        epilog="It knows CALVIN's 34 tasks: blocks, a drawer, a sliding door, a switch, a button.",
    )
    add = parser.add_argument
    add("sentence", nargs="?", default=SENTENCE, help=f"what to do, in English ({SENTENCE})")
    add("--tries", type=int, default=3, metavar="K", help="starts (3)")
    add("--scene", choices=SCENES, default=BUILTIN, help="A-D need CALVIN's assets")
    add("--seed", type=int, default=0, help="of the starts and of the policy's noise (0)")
    return parser
