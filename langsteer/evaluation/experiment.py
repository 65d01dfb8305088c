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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.npy import UnreadableFileError, read_npz
from langsteer.calvin.task import checked_task
from langsteer.configuration import run_command
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.page import (
    MAX_PANELS,
    Clip,
    Panel,
    Section,
    cloud_trace,
    line_trace,
    rate_bars,
    tile,
    write_page,
    xyz,
)
from langsteer.evaluation.rates import Rate, rates_by_name
from langsteer.evaluation.rollout import TaskRun, open_player, steered_tasks
from langsteer.evaluation.run import (
    Environment,
    EnvSettings,
    PlaySettings,
    facts,
    open_run,
    write_csv,
)
from langsteer.experts.recording import Performer
from langsteer.files import replacing, write_json
from langsteer.resumable import Pieces, Result, run_pieces
from langsteer.settings import Count, Natural, NonNegative
from langsteer.steering.feasibility import require_feasible

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv

EPISODES, CONTROL = "episodes", "control"
# Besides the seed: no demonstration of the same seed begins at an evaluation's start.
_EVALUATION = 0xE7A1
_COLUMNS = (
    "episode", "task", "instruction", "success", "steps", "tasks_seen", "predictions",
    "prediction_ms",
)  # fmt: skip
_GOOD, _BAD, _PREDICTED = "#2da44e", "#e5484d", "#f5a524"
_SECTION = Section(
    "Episodes",
    "Open one for its video and the gripper's path over the first point cloud that the policy saw; "
    "dots on the path are where predictions were made.",
)


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


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        folder: the run's.
        settings: what it was made with, plain; see `PlaySettings.identity`.
        episodes: one plain result each.
        control: the untrained network's results at the same starts, if it played.
    """

    folder: Path
    settings: Mapping[str, Any]
    episodes: Sequence[Result]
    control: Sequence[Result] = ()

    @property
    def rate(self) -> Rate:
        """Successful episodes of all."""
        return _rate(self.episodes)

    def task_rates(self) -> dict[str, Rate]:
        """Task to its rate, in order of name."""
        return _rates(self.episodes)

    def bars(self) -> dict[str, Rate]:
        """The tasks' rates, each before that of the untrained network."""
        control = _rates(self.control)
        found: dict[str, Rate] = {}
        for task, rate in self.task_rates().items():
            found[task] = rate
            if task in control:
                found[f"{task}, untrained network"] = control[task]
        return found

    @property
    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction."""
        return float(np.median([episode["prediction_ms"] for episode in self.episodes]))

    def provenance(self) -> dict[str, Any]:
        """Which checkpoint, scene, renderer, seed, precision and commit made it."""
        return {
            "checkpoint": self.settings["checkpoint"],
            "environment": self.episodes[0]["environment"] if self.episodes else None,
            "seed": self.settings["seed"],
            "device": self.settings["device"],
            "precision": self.settings["precision"],
            "commit": self.settings["commit"],
        }

    def lines(self) -> list[str]:
        """What a terminal shows after the rate."""
        made_by = self.provenance()
        env = made_by["environment"] or {}
        control = [f"untrained network at the same starts: {_rate(self.control)}"]
        return [
            *(control if self.control else []),
            f"median time per prediction: {self.prediction_ms:.0f} ms",
            f"checkpoint {made_by['checkpoint']['path']}, scene {env.get('scene')}, renderer "
            f"{env.get('renderer')}, seed {made_by['seed']}, commit {made_by['commit']}",
            f"results: {self.folder / 'results.json'}",
            f"report:  {self.folder / 'report.html'}",
        ]

    def write(self) -> None:
        """Write ``results.json``, ``episodes.csv`` and ``report.html``."""
        content = {
            "success": self.rate.to_dict(),
            "tasks": {task: rate.to_dict() for task, rate in self.task_rates().items()},
            "control": _rate(self.control).to_dict() if self.control else None,
            "median_prediction_ms": self.prediction_ms,
            "provenance": self.provenance(),
            "settings": self.settings,
        }
        write_json(self.folder / "results.json", content)
        write_csv(self.folder / "episodes.csv", _COLUMNS, self.episodes)
        _write_report(self)


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
    control = _play(settings, folder / CONTROL, control=True) if settings.control else []
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


def _rate(episodes: Sequence[Result]) -> Rate:
    return Rate(sum(episode["success"] for episode in episodes), len(episodes))


def _rates(episodes: Sequence[Result]) -> dict[str, Rate]:
    return rates_by_name((episode["task"], episode["success"]) for episode in episodes)


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
    if not reads_sentences(settings.policy.ckpt_path):
        print(
            f"warning: env.instruction={instruction!r} has no effect: this policy was trained "
            "without sentences, and steering=none tells it nothing. Its success at env.task="
            f"{','.join(settings.env.task)} is measured. To steer it, set steering=reference",
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


def _write_report(summary: Summary) -> None:
    rate, tasks = summary.rate, summary.task_rates()
    low, high = (f"{100 * bound:.0f}" for bound in rate.interval)
    write_page(
        summary.folder / "report.html",
        title=f"LangSteer: {next(iter(tasks)) if len(tasks) == 1 else f'{len(tasks)} tasks'}",
        section=_SECTION,
        panels=[_panel(summary.folder / EPISODES, one) for one in summary.episodes[:MAX_PANELS]],
        settings={"provenance": summary.provenance(), "settings": summary.settings},
        tiles=[
            tile(f"{100 * rate.value:.0f} %", f"success, 95 % interval {low}-{high} %"),
            tile(f"{rate.successes} of {rate.attempts}", "episodes"),
            tile(f"{summary.prediction_ms:.0f} ms", "median time per prediction"),
        ],
        bars=[rate_bars("Success by task, with 95 % intervals", summary.bars())],
        facts=facts(summary.settings, summary.provenance()["environment"]),
    )


def _panel(folder: Path, episode: Result) -> Panel:
    """An episode with its video and its path, as far as they were kept."""
    name, success = f"{episode['episode']:04d}", episode["success"]
    hand, traces = _traces(folder / f"{name}.npz", success)
    return Panel(
        f"#{episode['episode']} {_caption(episode)}",
        [(f"{'success' if success else 'failed'} ({episode['steps']} steps)", success)],
        [Clip("", folder / f"{name}.mp4", hand)],
        traces,
    )


def _caption(episode: Result) -> str:
    """The task and what the policy was given; episodes of older runs lack the latter."""
    given = episode.get("caption", f"\u201c{episode['instruction']}\u201d")
    return given if given.startswith(episode["task"]) else f"{episode['task']}: {given}"


def _traces(path: Path, success: bool) -> tuple[NDArray[np.floating] | None, list[dict[str, Any]]]:
    """The tcp's path (T + 1, 3), and traces of it, the first cloud and the places of predictions.

    Nothing where no trajectory was kept.
    """
    if not path.exists():
        return None, []
    try:
        names = ("point_cloud", "robot_obs", "predicted_at")
        cloud, states, predicted_at = read_npz(path, names).values()
        hand = states[:, :3]
        places = hand[predicted_at]
    except (UnreadableFileError, IndexError) as error:
        raise UserError(
            f"{path}: no trajectory of an episode ({error}); remove it, and the report goes without"
        ) from error
    dots = {"type": "scatter3d", "mode": "markers", "marker": {"size": 2.5, "color": _PREDICTED}}
    return hand, [
        cloud_trace(cloud),
        line_trace(hand, _GOOD if success else _BAD, 5),
        {**xyz(places), **dots, "showlegend": False},
    ]


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/run_experiment.py`` and ``langsteer-experiment``."""
    run_command("experiment", _run_and_print)


def _run_and_print(config: dict[str, Any]) -> None:
    summary = run_experiment(ExperimentSettings.from_dict(config))
    print(f"success rate: {summary.rate}")
    print("\n".join(summary.lines()))
