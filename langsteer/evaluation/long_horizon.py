"""CALVIN's long-horizon benchmark: five tasks in a row, from 1000 given starts (LH-MTLC).

Example::

    python scripts/evaluate_calvin.py policy.ckpt_path=outputs/checkpoints/x/latest.ckpt \\
        num_chains=100 num_workers=4

The protocol is that of mees/calvin's ``evaluate_policy.py``: one reset for a chain, 360 steps for a
task, success judged against the moment when the task was given, the chain ends at the first
failure, and the robot stays where it is between tasks.
"""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from langsteer.calvin.benchmark import N_CHAINS, Chain, chains, initial_observations
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import TASKS
from langsteer.configuration import require_switch, require_whole, run_command
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.chain_results import CHAINS, BenchmarkSummary, write_results
from langsteer.evaluation.jobs import (
    Settings,
    Stage,
    StageWorker,
    checkpoint_identity,
    precision_name,
    prepare_folder,
    run_name,
)
from langsteer.evaluation.rollout import TaskRun, run_task
from langsteer.evaluation.steered import checked_steering, steer
from langsteer.evaluation.video import Film
from langsteer.policies.agent import sample_once
from langsteer.resumable import Pieces, Result, Share, run_pieces
from langsteer.steering.feasibility import why_infeasible
from langsteer.training.checkpoint_util import git_commit

USAGE = """
Measure a policy on CALVIN's long-horizon benchmark (LH-MTLC).

  python scripts/evaluate_calvin.py \\
      policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_workers=8
  ... num_chains=20 env.scene=D annotations=path/to/new_playtable_validation.yaml
  ... output_dir=outputs/calvin/run shard=3/8       # one of eight jobs that share the folder

The same command again goes on with chains that are not finished yet.
"""


def evaluate(config: Mapping[str, Any]) -> BenchmarkSummary | None:
    """Play this job's chains that are not done yet; the summary once all jobs' are there.

    Raises:
        UserError: bad input, found before the first chain.
    """
    share = Share.parse(config["shard"])
    settings = checked_settings(config)
    folder = Path(config["output_dir"] or _default_folder(settings))
    prepare_folder(folder, settings)
    pieces = Pieces(folder / CHAINS, "chain", "chains")
    numbers = range(settings["num_chains"])
    done = run_pieces(
        pieces,
        numbers,
        partial(StageWorker, play_chain, settings, pieces.folder),
        config["num_workers"],
        share,
        lambda results: f"average length {BenchmarkSummary(list(results)).average_length:.2f}",
    )
    print(f"{folder}: {len(done)} of {len(numbers)} chains are done")
    if len(done) < len(numbers):
        return None
    summary = BenchmarkSummary(list(done.values()))
    write_results(folder, settings, summary)
    return summary


def checked_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the results depend on, checked."""
    number = config["num_chains"]
    if not isinstance(number, int) or not 1 <= number <= N_CHAINS:
        raise UserError(f"num_chains={number}: expected 1 to {N_CHAINS}")
    require_whole(config, max_steps=1, seed=0, num_workers=1, videos=0)
    require_switch("policy.use_ema", config["policy"]["use_ema"])
    names = ("policy", "env", "num_chains", "seed", "max_steps", "videos", "device")
    settings = {name: config[name] for name in names}
    tasks = sorted({task for chain in _first_chains(number) for task in chain.tasks})
    settings["steering"], _ = checked_steering(
        config["steering"], None, tasks, config["env"]["scene"]
    )
    settings["precision"] = precision_name(config)
    settings["instructions"] = read_instructions(config["annotations"])
    settings["checkpoint"] = checkpoint_identity(config["policy"]["ckpt_path"])
    settings["commit"] = git_commit()
    return settings


def read_instructions(path: str | None) -> dict[str, str]:
    """Task to the sentence that is given: the official file's first, else ours."""
    if path is None:
        return {task: phrasings(task)[0] for task in TASKS}
    try:
        sentences = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if any(isinstance(sentences[task], str) for task in TASKS):
            raise TypeError("a sentence that is no list")  # of which [0] would be a letter
        return {task: str(sentences[task][0]) for task in TASKS}
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: expected CALVIN's new_playtable_validation.yaml, a list of sentences for "
            f"each of the {len(TASKS)} tasks ({error!r})"
        ) from error


def _default_folder(settings: Settings) -> Path:
    return Path("outputs/calvin") / run_name(settings["policy"]["ckpt_path"], settings)


@cache
def _first_chains(count: int) -> list[Chain]:
    return chains(count)


def play_chain(stage: Stage, number: int, folder: Path) -> Result:
    """One chain, up to its first failure."""
    settings = stage.settings
    chain = _first_chains(settings["num_chains"])[number]
    robot_obs, scene_obs = initial_observations(chain.initial_state)
    stage.env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs})
    subtasks: list[dict[str, Any]] = []
    for place, task in enumerate(chain.tasks):
        instruction = settings["instructions"][task]
        random = np.random.default_rng([settings["seed"], number, place])
        seed = int(random.integers(2**31))
        stage.agent.reset(seed)
        stage.agent.instruct(instruction)
        _steer(stage, task, seed)
        film = Film(instruction) if number < settings["videos"] else None
        run = run_task(stage.env, stage.agent, task, settings["max_steps"], on_step=film)
        if film is not None:
            film.write(folder / f"{number:04d}_{place + 1}.mp4", run.outcome)
        subtasks.append(_subtask(instruction, run))
        if not run.success:
            break
    return {
        "chain": number,
        "initial_state": dict(chain.initial_state),
        "tasks": list(chain.tasks),
        "completed": sum(subtask["success"] for subtask in subtasks),
        "steps": sum(subtask["steps"] for subtask in subtasks),
        "subtasks": subtasks,
        "environment": stage.env.provenance(),
    }


def _steer(stage: Stage, task: str, seed: int) -> None:
    """Steer towards the task; one that cannot be done from here is left to the policy, and fails.

    That happens where an earlier task of the chain had a side effect.
    """
    stage.agent.predict = sample_once
    if why_infeasible(task, stage.env.info()) is None:
        steer(stage.agent, stage.settings["steering"], task, stage.env, seed)


def _subtask(instruction: str, run: TaskRun) -> dict[str, Any]:
    return {
        "task": run.task,
        "instruction": instruction,
        "success": run.success,
        "steps": run.steps,
        "prediction_ms": run.prediction_ms,
    }


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/evaluate_calvin.py`` and ``langsteer-evaluate``."""
    run_command("evaluate", USAGE, _evaluate_and_print)


def _evaluate_and_print(config: dict[str, Any]) -> None:
    summary = evaluate(config)
    if summary is None:
        print("the rest is left to other shards; the last one to finish writes the results")
        return
    print("\n".join(summary.lines()))
