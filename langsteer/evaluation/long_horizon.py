"""CALVIN's long-horizon benchmark: five tasks in a row, from 1000 given starts (LH-MTLC).

Example::

    python scripts/evaluate_calvin.py policy.ckpt_path=outputs/checkpoints/x/latest.ckpt \\
        num_chains=100 num_workers=4

The protocol is ``evaluate_policy.py`` of mees/calvin. A chain has one reset, a task 360 steps.
Success is judged against the state at the task's beginning. A chain ends at its first failure.
Between tasks nothing moves. `play_chain` runs a policy of any kind and needs no PyTorch.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from langsteer.calvin.benchmark import (
    CHAIN_LENGTH,
    N_CHAINS,
    STEPS_PER_TASK,
    chain,
    initial_observations,
)
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.configuration import compose, run_command
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.long_horizon_report import CHAINS, BenchmarkSummary
from langsteer.evaluation.player import Player, open_player, require_steerable
from langsteer.evaluation.run import Environment, PlaySettings, open_run
from langsteer.reading import read_yaml
from langsteer.records import problem
from langsteer.resumable import Pieces, Result, Share, run_pieces
from langsteer.settings import Count, Natural, NonNegative
from langsteer.steering.feasibility import why_infeasible

HELD_OUT = "held_out"
"""In place of a file of sentences: ours that no policy is trained on."""


@dataclass(frozen=True)
class BenchmarkSettings(PlaySettings):
    """See ``conf/evaluate.yaml``."""

    num_chains: Count
    chains: str | None
    annotations: str | None
    shard: str

    def check(self) -> None:
        """Raise `UserError` for chains, or a share of them, out of range."""
        super().check()
        self.require(self.num_chains <= N_CHAINS, "num_chains", f"1 to {N_CHAINS}")
        Share.parse(self.shard)
        numbers = self.numbers()
        exist = 0 <= numbers.start < numbers.stop <= N_CHAINS
        self.require(exist, "chains", f"FIRST-LAST within 0-{N_CHAINS - 1}, e.g. 100-399")
        both = self.chains is not None and self.num_chains != N_CHAINS
        self.require(not both, "chains", "null where num_chains is set; name one of them")

    def numbers(self) -> range:
        """The chains to be played, by their places among the official 1000."""
        if self.chains is None:
            return range(self.num_chains)
        found = re.fullmatch(r"(\d{1,4})-(\d{1,4})", self.chains, re.ASCII)
        return range(int(found[1]), int(found[2]) + 1) if found else range(0)

    def identity(self) -> dict[str, Any]:
        """`PlaySettings.identity`, and the sentences."""
        return {**super().identity(), "instructions": read_instructions(self.annotations)}


def read_instructions(path: str | None) -> dict[str, str]:
    """Task to its sentence: the first one in a file like CALVIN's, else of ours.

    Args:
        path: of the file; None for ours to train on, `HELD_OUT` for ours that are held out.

    Raises:
        UserError: the file cannot be read, or a task is missing.
    """
    if path is None or path == HELD_OUT:
        return {task: phrasings(task, held_out=path == HELD_OUT)[0] for task in TASKS}
    try:
        sentences = read_yaml(Path(path))
        wrong = problem(sentences, dict[str, list[str]])
        if wrong:
            raise TypeError(wrong)
        return {task: sentences[task][0] for task in TASKS}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: expected CALVIN's new_playtable_validation.yaml, a list of sentences for "
            f"each of the {len(TASKS)} tasks ({error!r:.300})"
        ) from error


class _Subtask(TypedDict):
    task: str
    instruction: str
    caption: NotRequired[str]  # runs of earlier versions have none
    success: bool
    steps: Natural
    prediction_ms: NonNegative


class _Chain(TypedDict):
    """The result of a chain, see `play_chain`."""

    chain: Natural
    tasks: list[str]
    completed: Natural
    steps: Natural
    subtasks: list[_Subtask]
    environment: Environment


def evaluate(settings: BenchmarkSettings) -> BenchmarkSummary | None:
    """Play the missing chains of this job; returns the summary, or None while others' are missing.

    Raises:
        UserError: bad input, found before the first chain.
    """
    identity = checked(settings)
    folder = open_run(settings.output_dir, "outputs/calvin", identity)
    contradiction = partial(_contradiction, identity["instructions"])
    pieces = Pieces(folder / CHAINS, "chain", "chains", kind=_Chain, contradiction=contradiction)
    numbers = settings.numbers()
    done = run_pieces(
        pieces,
        numbers,
        partial(_Chains, settings, identity["instructions"], pieces.folder),
        settings.num_workers,
        Share.parse(settings.shard),
        lambda results: f"average length {BenchmarkSummary(list(results)).average_length:.2f}",
    )
    print(f"{folder}: {len(done)} of {len(numbers)} chains are done")
    if len(done) < len(numbers):
        return None
    # The summary needs all chains, so the job that finds none missing writes it.
    summary = BenchmarkSummary(list(done.values()))
    summary.write(folder, identity)
    print(f"results: {folder / 'results.json'}\nreport:  {folder / 'report.html'}")
    return summary


def checked(settings: BenchmarkSettings) -> dict[str, Any]:
    """`BenchmarkSettings.identity`; steering to every task is possible.

    Raises:
        UserError: bad input.
    """
    if settings.steering.steers:
        tasks = sorted({task for number in settings.numbers() for task in chain(number).tasks})
        require_steerable(settings.steering, tasks, settings.env.scene)
    return settings.identity()


def _contradiction(instructions: Mapping[str, str], number: int, result: Result) -> str:
    """What of a result cannot be that of a chain."""
    played, subtasks = list(chain(number).tasks), result["subtasks"]
    if result["chain"] != number or result["tasks"] != played:
        return f"the result of chain {result['chain']}, {result['tasks']!r:.200}"
    tried = [(one["task"], one["instruction"]) for one in subtasks]
    if tried != [(task, instructions[task]) for task in played[: len(tried)]] or not tried:
        return f"subtasks {tried!r:.200}"
    done = [one["success"] for one in subtasks]
    ended = not done[-1] or len(done) == CHAIN_LENGTH
    if not all(done[:-1]) or not ended or result["completed"] != sum(done):
        return f"completed={result['completed']} with successes {done}"
    return ""


class _Chains:
    """Plays chains by their numbers."""

    def __init__(
        self, settings: BenchmarkSettings, instructions: Mapping[str, str], folder: Path
    ) -> None:
        self._settings, self._instructions, self._folder = settings, instructions, folder
        self._filmed = settings.numbers()[: settings.videos]
        self._player = open_player(settings)

    def do(self, number: int) -> Result:
        """One chain; films are written beside its result."""
        settings = self._settings
        return play_chain(
            self._player,
            number,
            self._instructions,
            settings.seed,
            settings.max_steps,
            self._folder if number in self._filmed else None,
        )

    def close(self) -> None:
        """Close the environment."""
        self._player.close()


def play_chain(
    player: Player,
    number: int,
    instructions: Mapping[str, str],
    seed: int = 0,
    max_steps: int = STEPS_PER_TASK,
    films: Path | None = None,
) -> Result:
    """One chain, up to its first failure.

    Args:
        player: the policy in its environment.
        number: the chain's place among the official 1000, from 0 on.
        instructions: task to sentence.
        seed: of the policy's noise.
        max_steps: control steps for each task.
        films: a folder for ``NNNN_1.mp4`` and so on; None films nothing.
    """
    played = chain(number)
    robot_obs, scene_obs = initial_observations(played.initial_state)
    # One reset for the whole chain: each task begins in the state its predecessor left.
    player.env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs})
    subtasks: list[dict[str, Any]] = []
    for place, task in enumerate(played.tasks):
        # Each task draws its own noise: with the same one a policy would repeat its mistakes.
        noise = int(np.random.default_rng([seed, number, place]).integers(2**31))
        # A side effect of an earlier task can make this one impossible. Then nothing can be steered
        # to, and the policy fails by itself.
        goal = task if why_infeasible(task, player.env.info()) is None else None
        video = None if films is None else films / f"{number:04d}_{place + 1}.mp4"
        run = player.play(task, instructions[task], noise, max_steps, goal, video)
        subtasks.append(
            {
                "task": task,
                "instruction": instructions[task],
                "caption": player.caption(task, instructions[task], goal),
                "success": run.success,
                "steps": run.steps,
                "unsteered": run.unsteered,
                "prediction_ms": run.prediction_ms,
            }
        )
        # The benchmark counts tasks in a row: nothing counts after a failure.
        if not run.success:
            break
    return {
        "chain": number,
        "initial_state": dict(played.initial_state),
        "tasks": list(played.tasks),
        "completed": sum(subtask["success"] for subtask in subtasks),
        "steps": sum(subtask["steps"] for subtask in subtasks),
        "subtasks": subtasks,
        "environment": player.env.provenance(),
    }


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/evaluate_calvin.py`` and ``langsteer-evaluate``."""
    run_command("evaluate", _evaluate_and_print)


def _evaluate_and_print(config: dict[str, Any]) -> None:
    summary = evaluate(BenchmarkSettings.from_dict(config))
    if summary is None:
        print("the rest is left to other shards; the last one to finish writes the results")
        return
    print("\n".join(summary.lines()))


@exits_cleanly
def preflight() -> None:
    """Check an evaluation before it waits in a queue, and say what it would play.

    ``python -m langsteer.evaluation.long_horizon KEY=VALUE ...`` is this check;
    ``scripts/slurm_evaluate.sh --test`` runs it.
    """
    settings = BenchmarkSettings.from_dict(compose("evaluate", sys.argv[1:]))
    checkpoint = checked(settings)["checkpoint"]["path"]
    _Chains(settings, {}, Path()).close()
    print(
        f"would play {len(settings.numbers())} chains with {checkpoint}: "
        f"scene {settings.env.scene}, renderer {settings.env.renderer}"
    )


if __name__ == "__main__":
    preflight()
