"""Run a policy for some episodes and measure how often it does the task.

Example::

    python scripts/run_experiment.py policy.ckpt_path=outputs/checkpoints/x/latest.ckpt \\
        env.task=open_drawer num_episodes=10

Each episode is a function of (settings, its number). What it leaves in the run's folder is listed
in `results`.
"""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import checked_task
from langsteer.configuration import require_switch, require_whole, run_command
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.jobs import (
    Settings,
    Stage,
    StageWorker,
    checkpoint_identity,
    precision_name,
    prepare_folder,
    run_name,
)
from langsteer.evaluation.report import write_report
from langsteer.evaluation.results import (
    Summary,
    episode_result,
    save_trajectory,
    write_results,
)
from langsteer.evaluation.rollout import run_task
from langsteer.evaluation.statistics import Rate
from langsteer.evaluation.steered import checked_steering, steer
from langsteer.evaluation.video import Film
from langsteer.experts.recording import Performer
from langsteer.resumable import Pieces, Result, run_pieces
from langsteer.training.checkpoint_util import git_commit

USAGE = """
Run a trained policy in the simulator and measure its success rate.

  python scripts/run_experiment.py \\
      policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_episodes=10
  ... env.task=close_drawer env.scene=D seed=7 num_workers=4
  ... steering=reference steering.demonstrations=data/demos env.instruction="pull the drawer open"

The same command again goes on with episodes that are not finished yet.
"""

EPISODES = "episodes"
# Besides the seed, so that no demonstration of the same seed begins at an evaluation's start.
_EVALUATION = 0xE7A1


def run_experiment(config: Mapping[str, Any]) -> Summary:
    """Run the episodes that are not done yet and write results and report.

    Raises:
        UserError: bad input, found before the first episode.
    """
    settings = checked_settings(config)
    folder = Path(config["output_dir"] or default_folder(settings))
    prepare_folder(folder, settings)
    pieces = Pieces(folder / EPISODES, "episode", "episodes")
    results = run_pieces(
        pieces,
        range(settings["num_episodes"]),
        partial(StageWorker, play_episode, settings, pieces.folder),
        config["num_workers"],
        summarise=_so_far,
    )
    summary = Summary(folder, settings, list(results.values()))
    write_results(summary)
    write_report(summary)
    return summary


def checked_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the results depend on, checked; how many processes do the work is not part of it."""
    require_whole(config, num_episodes=1, max_steps=1, seed=0, num_workers=1, videos=0)
    require_switch("policy.use_ema", config["policy"]["use_ema"])
    tasks, instruction = config["env"]["task"], config["env"]["instruction"]
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    if not tasks:
        raise UserError("env.task=[]: expected one of CALVIN's tasks, or a list of them")
    if not isinstance(instruction, str | None):
        raise UserError(f"env.instruction={instruction!r}: expected words")
    names = ("policy", "num_episodes", "seed", "max_steps", "videos", "device")
    settings = {name: config[name] for name in names}
    settings["steering"], tasks = checked_steering(
        config["steering"],
        instruction,
        [checked_task(task) for task in tasks],
        config["env"]["scene"],
    )
    settings["precision"] = precision_name(config)
    settings["env"] = {**config["env"], "task": tasks}
    settings["checkpoint"] = checkpoint_identity(config["policy"]["ckpt_path"])
    settings["commit"] = git_commit()
    return settings


def default_folder(settings: Settings) -> Path:
    """``outputs/experiments/<experiment>_<checkpoint>_<task>_<digest of the settings>``."""
    tasks = settings["env"]["task"]
    task = tasks[0] if len(tasks) == 1 else f"{len(tasks)}_tasks"
    return Path("outputs/experiments") / run_name(settings["policy"]["ckpt_path"], settings, task)


def play_episode(stage: Stage, number: int, folder: Path) -> Result:
    """One episode: a start like the benchmark's, the policy, and what is kept of it."""
    settings = stage.settings
    tasks = settings["env"]["task"]
    task = tasks[number % len(tasks)]
    instruction = settings["env"]["instruction"] or phrasings(task)[0]
    random = np.random.default_rng([_EVALUATION, settings["seed"], number])
    Performer(stage.env, images=False).prepare(task, random)
    seed = int(random.integers(2**31))
    stage.agent.reset(seed)
    stage.agent.instruct(instruction)
    steer(stage.agent, settings["steering"], task, stage.env, seed)
    film = Film(instruction) if number < settings["videos"] else None
    run = run_task(stage.env, stage.agent, task, settings["max_steps"], on_step=film)
    name = f"{number:04d}"
    if film is not None:
        film.write(folder / f"{name}.mp4", run.outcome)
    save_trajectory(folder / f"{name}.npz", run)
    return episode_result(number, instruction, run, stage.env.provenance())


def _so_far(results: Collection[Result]) -> str:
    return f"{sum(result['success'] for result in results)} of {len(results)} succeeded"


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/run_experiment.py`` and ``langsteer-experiment``."""
    run_command("experiment", USAGE, _run_and_print)


def _run_and_print(config: dict[str, Any]) -> None:
    summary = run_experiment(config)
    print(f"success rate: {Rate(summary.rate.successes, summary.rate.attempts)}")
    for line in summary.lines():
        print(line)
