"""The main job from nothing: demonstrations, conversion, training, steering, in minutes.

``make quickstart`` runs it. Each stage leaves its result in ``outputs/quickstart`` and is skipped
if the result is there; remove the folder to start again.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from langsteer.calvin.instructions import phrasings
from langsteer.configuration import compose
from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.convert_command import describe
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.evaluation.attempts import Attempt, blank_of
from langsteer.evaluation.comparison import compare
from langsteer.evaluation.comparison_report import video_path
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.experiment_report import Summary
from langsteer.evaluation.table import BASE, tables
from langsteer.evaluation.video import write_gif
from langsteer.experts.collection import CollectionSettings, collect, summary_lines
from langsteer.processes import default_workers
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import train

TASKS = ("open_drawer", "move_slider_left")
DEMONSTRATIONS, VALIDATION = 40, 2
POINTS = 128
EPISODES, SHARED_STARTS = 10, 5
STEPS = 200
"""Of an attempt from a shared start: several times what either task takes."""
DEMONSTRATION_SEED, EVALUATION_SEED = 0, 2026
EXPERIMENT = "drawer_and_door"
STEERING = "pointing"
"""It leaves HOW to the policy, as its control shows: a blank network pointed alike."""
FILMS = {
    STEERING: "two_sentences.gif",
    BASE: "left_alone.gif",
    blank_of(STEERING): "blank_network.gif",
}
"""Method to the film of its attempts at the tasks, from the first shared start."""
STAGES = 5


@dataclass(frozen=True)
class Outcome:
    """The quickstart's result.

    Attributes:
        summary: of episodes of the first task.
        attempts: at both tasks, from shared starts.
        checkpoint, store: the files behind them.
    """

    summary: Summary
    attempts: list[Attempt]
    checkpoint: Path
    store: Path

    @property
    def demonstrations(self) -> int:
        """Number of training demonstrations."""
        return DEMONSTRATIONS * len(TASKS)


def quickstart(folder: Path) -> Outcome:
    """Do all missing stages in ``folder``."""
    demos, store = folder / "demonstrations", folder / f"{EXPERIMENT}.zarr"
    checkpoint = folder / "checkpoints" / EXPERIMENT / "latest.ckpt"
    with _stage(1, f"record {DEMONSTRATIONS} demonstrations each of {' and '.join(TASKS)}"):
        _record(demos)
    with _stage(2, "convert them to Zarr, unlabelled"):
        _convert(demos, store)
    with _stage(3, "train a small DP3, which is not told what any of them shows"):
        _train(store, folder / "checkpoints")
    with _stage(4, f"point it at the drawer in {EPISODES} episodes that it has not seen"):
        summary = _evaluate(checkpoint, folder / "experiment")
    with _stage(5, "one scene, two sentences, and what a blank network does with them"):
        attempts = _compare(checkpoint, folder / "two_sentences")
    best = next((episode for episode in summary.episodes if episode["success"]), None)
    if best is not None:
        video = summary.folder / "episodes" / f"{best['episode']:04d}.mp4"
        write_gif([video], folder / f"{TASKS[0]}.gif")
    for method, film in FILMS.items():
        write_gif(_first_videos(folder / "two_sentences", attempts, method), folder / film)
    return Outcome(summary, attempts, checkpoint, store)


@contextlib.contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    print(f"\n[{number}/{STAGES}] {title}", flush=True)
    begun = time.perf_counter()
    yield
    print(f"      {time.perf_counter() - begun:.0f} s", flush=True)


def _record(path: Path) -> None:
    settings = CollectionSettings(
        tasks=TASKS,
        episodes_per_task=DEMONSTRATIONS,
        validation_per_task=VALIDATION,
        seed=DEMONSTRATION_SEED,
    )
    print("\n".join(summary_lines(collect(path, settings))))


def _convert(demos: Path, path: Path) -> None:
    if path.exists():
        print(f"{path}: there already, {open_store(path).n_frames} frames")
        return
    settings = ConversionSettings(episodes="play", n_points=POINTS, skip=("img", "depth"))
    print(describe(convert(demos, path, settings)))


def _train(store: Path, checkpoints: Path) -> None:
    overrides = [
        "training=quickstart",
        "policy=quickstart",
        f"training.dataset.zarr_path={store}",
        f"training.checkpoint_dir={checkpoints}",
        f"training.experiment_name={EXPERIMENT}",
        "training.resume=auto",
    ]
    if not train(RunConfig.from_dict(compose("train", overrides))):
        raise UserError("training was asked to stop; the same command goes on where it was")


def _evaluate(checkpoint: Path, folder: Path) -> Summary:
    overrides = [
        f"policy.ckpt_path={checkpoint}",
        f"steering={STEERING}",
        f"env.instruction={phrasings(TASKS[0])[0]}",
        f"num_episodes={EPISODES}",
        f"seed={EVALUATION_SEED}",
        f"num_workers={min(2, default_workers())}",
        f"output_dir={folder}",
    ]
    return run_experiment(ExperimentSettings.from_dict(compose("experiment", overrides)))


def _compare(checkpoint: Path, folder: Path) -> list[Attempt]:
    overrides = [
        f"checkpoint={checkpoint}",
        f"tasks=[{','.join(TASKS)}]",
        f"methods=[{BASE},{STEERING}]",
        "together=true",
        f"starts={SHARED_STARTS}",
        f"max_steps={STEPS}",
        "videos=1",
        f"output_dir={folder}",
    ]
    attempts = compare(overrides)
    assert attempts is not None  # no other job has a share
    print(tables(attempts), end="")
    return attempts


def _first_videos(folder: Path, attempts: Sequence[Attempt], method: str) -> list[Path]:
    """Videos of a method at each sentence, from the first start."""
    shown = [one for one in attempts if one.method == method][: len(TASKS)]
    return [video_path(folder, one.start, one.task, one.method) for one in shown]
