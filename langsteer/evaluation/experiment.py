"""Run a policy for some episodes and measure how often it does the task.

Example::

    python scripts/run_experiment.py policy.ckpt_path=outputs/checkpoints/x/latest.ckpt \\
        env.task=open_drawer num_episodes=10

Each episode is a function of (settings, its number). The folder of a run::

    outputs/experiments/<run>/
    ├── settings.json       what the results depend on
    ├── results.json        rates, per task and in all, with intervals; provenance
    ├── episodes.csv        one line for each episode
    ├── report.html
    ├── episodes/           NNNN.json, NNNN.npz (trajectory), NNNN.mp4
    └── control/            the same of the untrained network, without films
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import checked_task
from langsteer.configuration import run_command
from langsteer.errors import exits_cleanly
from langsteer.evaluation.experiment_report import EPISODES, Summary
from langsteer.evaluation.player import open_player, steered_tasks
from langsteer.evaluation.rollout import TaskRun
from langsteer.evaluation.run import (
    Environment,
    EnvSettings,
    PlaySettings,
    open_run,
)
from langsteer.experts.recording import Performer
from langsteer.files import replacing
from langsteer.resumable import Pieces, Result, run_pieces
from langsteer.settings import Count, Natural, NonNegative
from langsteer.steering.feasibility import require_feasible

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv

# Besides the seed: no demonstration of the same seed begins at an evaluation's start.
_EVALUATION = 0xE7A1


@dataclass(frozen=True)
class TaskEnvSettings(EnvSettings, prefix="env."):
    """The simulator and its task."""

    task: tuple[str, ...] = ("open_drawer",)
    instruction: str | None = None

    def check(self) -> None:
        """Raise `UserError` for no task, an unknown one, or no words."""
        self.require(bool(self.task), "task", "one of CALVIN's tasks, or a list of them")
        for task in self.task:
            checked_task(task)
        says = self.instruction is None or any(map(str.isalpha, self.instruction))
        self.require(says, "instruction", "words")


@dataclass(frozen=True)
class ExperimentSettings(PlaySettings):
    """See ``conf/experiment.yaml``."""

    env: TaskEnvSettings
    num_episodes: Count
    control: bool = False

    def check(self) -> None:
        """Raise `UserError` for a control of a policy elsewhere."""
        super().check()
        self.require(
            not self.control or self.policy.url is None, "control", "false where policy.url is set"
        )


class _Episode(TypedDict):
    """The result of an episode."""

    episode: Natural
    task: str
    instruction: str
    caption: NotRequired[str]  # runs of earlier versions have none
    success: bool
    steps: Natural
    tasks_seen: list[str]
    predictions: Natural
    prediction_ms: NonNegative
    environment: Environment


def run_experiment(settings: ExperimentSettings) -> Summary:
    """Run the missing episodes, and write results and report.

    Raises:
        UserError: bad input, found before the first episode.
    """
    env = settings.env
    tasks = steered_tasks(settings.steering, env.instruction, env.task, env.scene)
    settings = replace(settings, env=replace(env, task=tasks))
    # The identity names the folder's run: results of other settings never mix into it.
    identity = settings.identity()
    _warn_of_unread_words(settings)
    what = f"{len(tasks)}_tasks" if len(tasks) > 1 else tasks[0]
    folder = open_run(settings.output_dir, "outputs/experiments", identity, what)
    episodes = _play(settings, folder / EPISODES)
    control = _play(settings, folder / "control", control=True) if settings.control else []
    summary = Summary(folder, identity, episodes, control)
    summary.write()
    return summary


def _play(settings: ExperimentSettings, folder: Path, control: bool = False) -> list[Result]:
    """All episodes, the missing ones played first."""
    pieces = Pieces(
        folder,
        "episode",
        "control" if control else "episodes",
        kind=_Episode,
        contradiction=partial(_contradiction, settings.env),
    )
    # Episodes of an earlier run of the same settings are kept; only the others are played.
    results = run_pieces(
        pieces,
        range(settings.num_episodes),
        partial(_Episodes, replace(settings, videos=0) if control else settings, folder, control),
        settings.num_workers,
        summarise=_so_far,
    )
    return list(results.values())


def prepare_start(env: "CalvinEnv", task: str, seed: int, number: int) -> int:
    """Bring an environment to the start of an experiment's episode.

    Args:
        env: in any state.
        task: to do.
        seed: of the experiment.
        number: of the episode.

    Returns:
        The seed of its noise.
    """
    # The start is drawn first, then the noise's seed, both from the episode's own numbers.
    random = np.random.default_rng([_EVALUATION, seed, number])
    Performer(env, images=False).prepare(task, random)
    return int(random.integers(2**31))


def _asked(env: TaskEnvSettings, number: int) -> tuple[str, str]:
    """The task of an episode and its words; tasks take turns."""
    task = env.task[number % len(env.task)]
    return task, env.instruction or phrasings(task)[0]


def _contradiction(env: TaskEnvSettings, number: int, episode: Result) -> str:
    """What of a result cannot be that of an episode."""
    found = (episode["episode"], episode["task"], episode["instruction"])
    if found != (number, *_asked(env, number)):
        return f"the result of episode {found[0]}, {found[1]!r:.40}, {found[2]!r:.100}"
    if episode["success"] != (episode["task"] in episode["tasks_seen"]):
        return f"success={episode['success']} with tasks_seen={episode['tasks_seen']!r:.100}"
    return ""


def _warn_of_unread_words(settings: ExperimentSettings) -> None:
    """Say that an instruction changes nothing if neither policy nor steering reads it."""
    from langsteer.policies.loading import reads_sentences  # PyTorch

    instruction = settings.env.instruction
    if instruction is None or settings.steering.steers:
        return
    if not settings.policy.told:
        why = "policy.told=false withholds it"
    elif reads_sentences(settings.policy.ckpt_path):
        return
    else:
        why = "this policy was trained without sentences"
    print(
        f"warning: env.instruction={instruction!r} has no effect: {why}, and steering=none tells "
        f"the policy nothing. Its success at env.task={','.join(settings.env.task)} is measured. "
        "To steer it, set steering=pointing",
        file=sys.stderr,
    )


def _so_far(results: Collection[Result]) -> str:
    return f"{sum(result['success'] for result in results)} of {len(results)} succeeded"


class _Episodes:
    """Plays episodes by their numbers."""

    def __init__(self, settings: ExperimentSettings, folder: Path, control: bool) -> None:
        self._settings, self._folder = settings, folder
        self._player = open_player(settings, control)

    def do(self, number: int) -> Result:
        """One episode: a start like the benchmark's, the policy, and its files."""
        settings, player = self._settings, self._player
        task, instruction = _asked(settings.env, number)
        seed = prepare_start(player.env, task, settings.seed, number)
        # A steering towards an impossible task would count as the policy's failure.
        if settings.steering.steers and settings.steering.point is None:
            require_feasible(task, player.env.info())
        video = self._folder / f"{number:04d}.mp4" if number < settings.videos else None
        run = player.play(task, instruction, seed, settings.max_steps, task, video)
        # The trajectory comes first: the result file marks the episode done.
        _save_trajectory(self._folder / f"{number:04d}.npz", run)
        return {
            "episode": number,
            "task": task,
            "instruction": instruction,
            "caption": player.caption(task, instruction, task),
            "success": run.success,
            "steps": run.steps,
            "tasks_seen": sorted(run.tasks_seen),
            "unsteered": run.unsteered,
            "predictions": len(run.predicted_at),
            "prediction_ms": run.prediction_ms,
            "environment": player.env.provenance(),
        }

    def close(self) -> None:
        """Close the environment."""
        self._player.close()


def _save_trajectory(path: Path, run: TaskRun) -> None:
    """Write ``robot_obs`` (T + 1, 15), ``scene_obs`` (T + 1, 24), ``actions`` (T, 7),
    ``predicted_at`` (steps) and ``point_cloud`` (P, 3), the first one seen.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            robot_obs=np.array(run.robot_obs),
            scene_obs=np.array(run.scene_obs),
            actions=np.array(run.actions),
            predicted_at=np.array(run.predicted_at),
            point_cloud=np.array(run.cloud),
        )


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/run_experiment.py`` and ``langsteer-experiment``."""
    run_command("experiment", _run_and_print)


def _run_and_print(config: dict[str, Any]) -> None:
    summary = run_experiment(ExperimentSettings.from_dict(config))
    print(f"success rate: {summary.rate}")
    print("\n".join(summary.lines()))
