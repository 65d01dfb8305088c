"""The main job from nothing: demonstrations, conversion, training, evaluation, in minutes.

``make quickstart`` runs it. Each stage leaves its result in ``outputs/quickstart`` and is skipped
when that is there; remove the folder to start again.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from langsteer.configuration import compose
from langsteer.data.conversion import convert
from langsteer.data.convert_command import describe
from langsteer.data.plan import ConversionSettings
from langsteer.data.store import open_store
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.experiment import run_experiment
from langsteer.evaluation.results import Summary
from langsteer.evaluation.video import write_gif
from langsteer.experts.collection import CollectionSettings, collect, summary_lines
from langsteer.processes import default_workers
from langsteer.training.dp3_trainer import train

TASK = "open_drawer"
DEMONSTRATIONS, VALIDATION = 60, 3
POINTS = 128
EPISODES = 10
DEMONSTRATION_SEED, EVALUATION_SEED = 0, 2026
EXPERIMENT = "open_drawer"


def quickstart(folder: Path) -> Summary:
    """Do all stages that are not done yet in ``folder``."""
    demos, store = folder / "demonstrations", folder / f"{TASK}.zarr"
    _stage(1, f"record {DEMONSTRATIONS} demonstrations of {TASK}", lambda: _record(demos))
    _stage(2, "convert them to Zarr", lambda: _convert(demos, store))
    checkpoint = folder / "checkpoints" / EXPERIMENT / "latest.ckpt"
    _stage(3, "train a small DP3", lambda: _train(store, folder / "checkpoints"))
    summaries: list[Summary] = []
    _stage(
        4,
        f"run {EPISODES} episodes that it has not seen",
        lambda: summaries.append(_evaluate(checkpoint, folder / "experiment")),
    )
    summary = summaries[0]
    best = next((episode for episode in summary.episodes if episode["success"]), None)
    if best is not None:
        video = summary.folder / "episodes" / f"{best['episode']:04d}.mp4"
        write_gif(video, folder / f"{TASK}.gif")
    return summary


def _stage(number: int, title: str, work: Callable[[], object]) -> None:
    print(f"\n[{number}/4] {title}", flush=True)
    begun = time.perf_counter()
    work()
    print(f"      {time.perf_counter() - begun:.0f} s", flush=True)


def _record(path: Path) -> None:
    settings = CollectionSettings(
        tasks=(TASK,),
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
    finished = train(
        compose(
            "train",
            [
                "training=quickstart",
                "policy=quickstart",
                f"training.dataset.zarr_path={store}",
                f"training.checkpoint_dir={checkpoints}",
                f"training.experiment_name={EXPERIMENT}",
                "training.resume=auto",
            ],
        )
    )
    if not finished:
        raise UserError("training was asked to stop; the same command goes on where it was")


def _evaluate(checkpoint: Path, folder: Path) -> Summary:
    overrides = [
        f"policy.ckpt_path={checkpoint}",
        f"env.task={TASK}",
        f"num_episodes={EPISODES}",
        f"seed={EVALUATION_SEED}",
        f"num_workers={min(2, default_workers())}",
        f"output_dir={folder}",
    ]
    return run_experiment(compose("experiment", overrides))


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/quickstart.py``."""
    parser = argparse.ArgumentParser(
        prog="quickstart", description="From nothing to a video of a robot that opens a drawer."
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/quickstart"))
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    summary = quickstart(options.folder)
    print(f"\nThe drawer was opened in {summary.rate}.")
    print("\n".join(summary.lines()))
    print(f"videos:  {summary.folder / 'episodes'}/0000.mp4 ...")
    print(f"all in {(time.perf_counter() - begun) / 60:.1f} minutes")
