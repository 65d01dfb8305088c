"""Scaling of two ranks against one on pinned cores, and seconds from a signal to the checkpoint.

    python benchmarks/slurm.py scaling
    python benchmarks/slurm.py signal --policies simple_dp3 dp3

Both train the full-size policies by ``scripts/train_dp3.py`` on random clouds of 2048 points.
``scaling`` runs 1 rank and 2 ranks in turn, one core and one thread each, ``--repeats`` times;
efficiency is the rate of two over twice the rate of one. It needs two idle cores. The ranks find
each other over loopback as they would on two nodes: gloo, no shared memory.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.stores import write_store
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline

ROOT = Path(__file__).resolve().parents[1]
EPISODES, LENGTH, POINTS = 8, 64, 2048
QUIET = [
    "training=dp3_debug",
    "training.device=cpu",
    "training.num_workers=0",
    "training.num_epochs=999",
    "training.val_every=999",
    "training.checkpoint_every=999",
    "training.log_every=1",
]


def random_store(path: Path) -> Path:
    """A store of random clouds of the usual size."""
    random = np.random.default_rng(0)
    frames = EPISODES * LENGTH
    arrays = {
        "point_cloud": random.uniform(0, 0.5, (frames, POINTS, 6)).astype(np.float32),
        "state": random.uniform(-1, 1, (frames, 15)).astype(np.float32),
        "action": random.uniform(-1, 1, (frames, 7)).astype(np.float32),
    }
    ends = np.arange(1, EPISODES + 1) * LENGTH
    names = np.array(["open_drawer"] * EPISODES)
    episodes = EpisodeTable(
        split=np.array(["training"] * EPISODES),
        task=names,
        instruction=names,
        first_frame=ends - LENGTH,
        group=np.arange(EPISODES),
    )
    write_store(path, arrays, ends, episodes, ObservationPipeline(n_points=POINTS), 64)
    return path


@contextmanager
def running(
    store: Path, experiment: Path, cores: list[int], *overrides: str
) -> Iterator[list[subprocess.Popen]]:
    """One rank on each core, each with one thread; they end with the block."""
    ranks: list[subprocess.Popen] = []
    try:
        yield _start(ranks, store, experiment, cores, overrides)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _start(
    ranks: list[subprocess.Popen],
    store: Path,
    experiment: Path,
    cores: list[int],
    overrides: tuple[str, ...],
) -> list[subprocess.Popen]:
    for rank, core in enumerate(cores):
        place = [f"training.checkpoint_dir={experiment.parent}"]
        place += [f"training.experiment_name={experiment.name}"]
        script = str(ROOT / "scripts" / "train_dp3.py")
        environment = os.environ | {
            "CALVIN_ZARR_PATH": str(store),
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "disabled",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(cores)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29411",
        }
        command = ["taskset", "-c", str(core), sys.executable, script, *QUIET, *place, *overrides]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    return ranks


def rates(experiment: Path) -> list[float]:
    """Samples per second of each step so far."""
    path = experiment / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record["samples_per_second"] for record in records if "samples_per_second" in record]


def wait_for_steps(experiment: Path, steps: int, ranks: list[subprocess.Popen]) -> None:
    """Until so many steps are done."""
    while len(rates(experiment)) < steps:
        if any(rank.poll() is not None for rank in ranks):
            raise SystemExit("a rank ended early")
        time.sleep(0.1)


def scaling(folder: Path, store: Path, options: argparse.Namespace) -> None:
    """Print the rates of 1 and 2 ranks and the efficiency."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed")
    print("| policy | samples/s, 1 rank | 2 ranks | efficiency |\n|---|---|---|---|")
    for policy in options.policies:
        found: dict[int, list[float]] = {1: [], 2: []}
        for repeat in range(options.repeats):
            for count in (1, 2):
                experiment = folder / f"{policy}_{repeat}_{count}"
                overrides = [f"policy={policy}", f"training.batch_size={options.batch_size}"]
                with running(store, experiment, cores[:count], *overrides) as ranks:
                    wait_for_steps(experiment, options.steps, ranks)
                found[count].append(float(np.median(rates(experiment)[2:])))
        one, two = max(found[1]), max(found[2])
        print(f"| {policy} | {one:.1f} | {two:.1f} | {two / one / 2:.0%} |")


def signalled(folder: Path, store: Path, options: argparse.Namespace) -> None:
    """Print the seconds from SIGUSR1 to the checkpoint on disk, and to the end of the process."""
    print("| policy | checkpoint, MB | s a step | s to checkpoint | s to exit | steps lost |")
    print("|---|---|---|---|---|---|")
    for policy in options.policies:
        experiment = folder / f"{policy}_signal"
        overrides = [f"policy={policy}", f"training.batch_size={options.batch_size}"]
        core = sorted(os.sched_getaffinity(0))[:1]
        with running(store, experiment, core, *overrides) as (rank,):
            wait_for_steps(experiment, 4, [rank])
            step = options.batch_size / float(np.median(rates(experiment)))
            began = time.time()
            rank.send_signal(signal.SIGUSR1)
            status = rank.wait()
            exited = time.time() - began
        if status != 75:
            raise SystemExit(f"exit status {status}, expected 75")
        latest = experiment / "latest.ckpt"
        saved, size = latest.stat().st_ctime - began, latest.stat().st_size / 1e6
        log = (experiment / "train.log").read_text()
        lost = len(rates(experiment)) - int(log.split("saved step ")[1].split()[0])
        print(f"| {policy} | {size:.0f} | {step:.2f} | {saved:.1f} | {exited:.1f} | {lost} |")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measure", choices=("scaling", "signal"))
    parser.add_argument("--policies", nargs="+", default=["simple_dp3"])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = random_store(folder / "random.zarr")
        (scaling if options.measure == "scaling" else signalled)(folder, store, options)


if __name__ == "__main__":
    main()
