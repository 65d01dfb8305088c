"""How often the experts solve their tasks, and how fast their demonstrations are recorded.

    python benchmarks/experts.py success --scenes builtin D --seeds 50
    python benchmarks/experts.py recording

``success`` counts, over starts drawn with seeds 0 to N - 1, how often the oracle sees the task
done; a task that needs a block in hand counts as failed where lifting it fails. ``recording``
records the same play episodes with 1 and 2 workers.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.calvin.task import checked_task
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.rendering import RENDERERS
from langsteer.envs.scene import SCENES
from langsteer.errors import exits_cleanly
from langsteer.experts.collection import CollectionSettings, collect
from langsteer.experts.library import SKILLED_TASKS
from langsteer.experts.recording import Performer


def count_successes(performer: Performer, task: str, seeds: int) -> int:
    """How many of the starts end in success."""
    episodes = (performer.single(task, np.random.default_rng(seed)) for seed in range(seeds))
    return sum(task in episode.achieved for episode in episodes)


def success(scenes: list[str], tasks: list[str], seeds: int, assets_path: Path | None) -> None:
    """Print a table: tasks down, scenes across."""
    performers = {
        scene: Performer(CalvinEnv(scene, assets_path, "tiny"), images=False) for scene in scenes
    }
    print(f"| task (of {seeds}) | {' | '.join(scenes)} |")
    print(f"|---|{'---|' * len(scenes)}")
    for task in tasks:
        counts = [str(count_successes(performer, task, seeds)) for performer in performers.values()]
        print(f"| {task} | {' | '.join(counts)} |", flush=True)


def recording(renderer: str, episodes: int) -> None:
    """Print frames a second with 1 and 2 workers."""
    settings = CollectionSettings(
        SKILLED_TASKS, episodes, 0, play=True, chain_length=4, renderer=renderer
    )
    print("| workers | frames | seconds | frames/s |\n|---|---|---|---|")
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            summary = collect(Path(folder) / "demos", settings, num_workers=workers)
            seconds = time.perf_counter() - began
        rate = summary.frames / seconds
        print(f"| {workers} | {summary.frames} | {seconds:.1f} | {rate:.0f} |", flush=True)


@exits_cleanly
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("success")
    table.add_argument("--scenes", nargs="+", choices=SCENES, default=["builtin"])
    table.add_argument("--tasks", nargs="+", default=SKILLED_TASKS)
    table.add_argument("--seeds", type=int, default=50)
    table.add_argument("--assets_path", type=Path)
    speed = commands.add_parser("recording")
    speed.add_argument("--renderer", choices=RENDERERS, default="depth")
    speed.add_argument("--episodes", type=int, default=4)
    options = parser.parse_args()
    if options.command == "success":
        tasks = [checked_task(task) for task in options.tasks]
        success(options.scenes, tasks, options.seeds, options.assets_path)
    else:
        recording(options.renderer, options.episodes)


if __name__ == "__main__":
    main()
