"""The command ``langsteer-collect``: experts record demonstrations as a CALVIN dataset.

Example::

    langsteer-collect --save_path data/demos --tasks open_drawer --episodes_per_task 30
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langsteer.calvin.task import TASKS
from langsteer.command_line import command_parser
from langsteer.envs.scene import BUILTIN, RENDERERS, SCENES
from langsteer.envs.scene_config import ASSETS_VARIABLE
from langsteer.errors import exits_cleanly

if TYPE_CHECKING:
    from langsteer.experts.recording import Driver


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the given arguments, by default those of the process."""
    options = _parser().parse_args(arguments)
    # Here, since help needs no simulator.
    from langsteer.experts.collection import CollectionSettings, collect, summary_lines
    from langsteer.experts.library import SKILLED_TASKS

    settings = CollectionSettings(
        tasks=SKILLED_TASKS if options.tasks is None else options.tasks,
        episodes_per_task=options.episodes_per_task,
        validation_per_task=options.validation_per_task,
        play=options.play,
        chain_length=options.chain_length,
        instructed=options.instructed,
        colours=options.colours,
        driver=options.driver,
        pointed=options.pointed,
        scene=options.scene,
        renderer=options.renderer,
        seed=options.seed,
    )
    summary = collect(
        options.save_path,
        settings,
        options.assets_path,
        options.num_workers,
        options.overwrite,
        _driver_maker(options.driver, options.pointed),
    )
    print("\n".join(summary_lines(summary)))


def _driver_maker(checkpoint: str, pointed: bool) -> Callable[[], "Driver"] | None:
    if not checkpoint:
        return None
    from langsteer.evaluation.driver import PolicyDriver  # needs PyTorch, recording alone does not

    if not pointed:
        return functools.partial(PolicyDriver.load, checkpoint)
    from langsteer.configuration import compose
    from langsteer.steering.config import SteeringConfig

    steering = SteeringConfig.from_dict(compose("evaluate", ["steering=pointing"])["steering"])
    return functools.partial(PolicyDriver.load, checkpoint, steering)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Record demonstrations of scripted experts as a CALVIN dataset. Interrupted, "
        "the same command goes on where it stopped.",
        epilog=f"tasks: {', '.join(TASKS)}",
    )
    add = parser.add_argument
    add("--save_path", type=Path, required=True, help="folder of the dataset, e.g. data/demos")
    add("--tasks", nargs="+", metavar="TASK", help="default: all, see below")
    add("--episodes_per_task", type=int, default=30, metavar="K", help="(30); of all in play")
    add("--validation_per_task", type=int, default=3, metavar="K", help="(3); of all in play")
    add("--play", action="store_true", help="long chains of feasible tasks in each episode")
    add("--chain_length", type=int, default=8, metavar="K", help="tasks in a chain (8)")
    add(
        "--instructed",
        action="store_true",
        help="with --play: annotate each task from its beginning to its end, and go on soon after "
        "it is done, as the long-horizon benchmark does",
    )
    add(
        "--driver",
        default="",
        metavar="CHECKPOINT",
        help="with --instructed: this policy begins most tasks, and the expert takes over (DAgger)",
    )
    add(
        "--pointed",
        action="store_true",
        help="with --driver: steering=pointing leads it to its tasks, and no sentence is told",
    )
    add("--scene", choices=SCENES, default=BUILTIN)
    add("--assets_path", type=Path, help=f"calvin_env, for scenes A-D (${ASSETS_VARIABLE})")
    add(
        "--renderer",
        choices=RENDERERS,
        default="depth",
        help="depth is fast; tiny and egl are PyBullet's own",
    )
    add("--colours", action="store_true", help="let the depth renderer draw colours, not black")
    add("--seed", type=int, default=0)
    add("--num_workers", type=int, metavar="K", help="processes (one for each core, 8 at most)")
    add("--overwrite", action="store_true", help="throw away what an earlier run recorded there")
    return parser
