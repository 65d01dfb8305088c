"""A tiny store and ways to run the real trainer on it, here or in processes of its own."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.stores import write_store
from langsteer.configuration import compose
from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import train

ROOT = Path(__file__).resolve().parents[2]
POINTS = 32
SHORT = [
    "training.num_epochs=3",
    "training.batch_size=8",
    "training.val_every=1",
    "training.checkpoint_every=1",
    "training.val_action_samples=8",
    "training.log_every=2",
]


def make_store(path: Path, lengths: list[int], splits: list[str], seed: int = 0) -> Path:
    """A store of random clouds whose actions follow from the state."""
    random = np.random.default_rng(seed)
    ends = np.cumsum(lengths, dtype=np.int64)
    states = random.uniform(-1, 1, (ends[-1], 15)).astype(np.float32)
    clouds = random.uniform(-0.4, 0.4, (ends[-1], POINTS, 6)).astype(np.float32)
    clouds[..., 3:] = np.abs(clouds[..., 3:])
    actions = np.tanh(states[:, :7] * 2 + clouds[:, :7, 0])
    episodes = EpisodeTable(
        split=np.array(splits),
        task=np.array(["open_drawer"] * len(lengths)),
        instruction=np.array(["open the drawer"] * len(lengths)),
        first_frame=ends - np.array(lengths),
        group=np.arange(len(lengths)),
    )
    arrays = {"point_cloud": clouds, "state": states, "action": actions.astype(np.float32)}
    write_store(path, arrays, ends, episodes, ObservationPipeline(n_points=POINTS), 32)
    return path


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training episodes with 83 windows, not a multiple of the batch size, and one more."""
    path = tmp_path_factory.mktemp("store") / "tiny.zarr"
    return make_store(path, [24, 20, 30, 17, 27, 19], ["training"] * 5 + ["validation"])


@pytest.fixture(scope="session")
def store_factory() -> Callable[..., Path]:
    """`make_store`, for tests that want another one."""
    return make_store


class Training:
    """Runs the trainer for one store, with the tiny policy."""

    def __init__(self, store: Path, folder: Path, defaults: list[str]) -> None:
        self.store, self.folder, self.defaults = store, folder, defaults

    def command(self, *overrides: str, ranks: int = 1) -> list[str]:
        """The command line; with more ranks through torchrun on loopback."""
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
            launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        script = str(ROOT / "scripts" / "train_dp3.py")
        return [
            *launcher,
            script,
            *self.defaults,
            f"training.checkpoint_dir={self.folder}",
            *overrides,
        ]

    def here(self, *overrides: str, status: int = 0) -> str:
        """As `run`, within this process: much faster, for what no other process is needed."""
        values = [*self.defaults, f"training.checkpoint_dir={self.folder}", *overrides]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                found = self._train_here(values)
            except UserError as error:
                print(f"error: {error}")
                found = 2
        assert found == status, output.getvalue()
        return output.getvalue()

    def _train_here(self, overrides: list[str]) -> int:
        config = compose("train", overrides)
        if config["training"]["dataset"]["zarr_path"] is None:
            config["training"]["dataset"]["zarr_path"] = str(self.store)
        return 0 if train(RunConfig.from_dict(config)) else 75

    def environment(self, **extra: str) -> dict[str, str]:
        """This process's, without any launcher's variables."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return (
            ours
            | {
                "CALVIN_ZARR_PATH": str(self.store),
                "OMP_NUM_THREADS": "1",
                "WANDB_MODE": "disabled",
            }
            | extra
        )

    def start(self, *overrides: str, ranks: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Begin a training."""
        return self._popen(self.command(*overrides, ranks=ranks), environment)

    def _popen(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.environment(**environment) | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *overrides: str, ranks: int = 1, status: int = 0, **environment: str) -> str:
        """Train to the end, check the exit status, and return all that was printed."""
        process = self.start(*overrides, ranks=ranks, **environment)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == status, output
        return output

    def start_patched(
        self, patch: str, *overrides: str, **environment: str
    ) -> subprocess.Popen[str]:
        """Begin a training in a process that runs the statements ``patch`` before."""
        code = f"{patch}\nfrom langsteer.train_command import main\nmain()"
        arguments = self.command(*overrides)[2:]
        return self._popen([sys.executable, "-c", code, *arguments], environment)

    def start_ranks(self, *overrides: str, ranks: int = 2) -> list[subprocess.Popen[str]]:
        """Begin one training as SLURM does: a task for each rank, and nobody who watches them."""
        port = free_port()
        tasks = [self.slurm_task(rank, ranks, port) for rank in range(ranks)]
        return [self._popen(self.command(*overrides), task) for task in tasks]

    def slurm_task(self, rank: int, ranks: int, port: int) -> dict[str, str]:
        """The environment of a task of a SLURM step on this machine."""
        return {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": str(ranks),
            "SLURM_STEP_ID": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }

    def latest(self, experiment: str) -> dict[str, Any]:
        """The content of an experiment's newest checkpoint."""
        return torch.load(self.folder / experiment / "latest.ckpt", weights_only=True)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[subprocess.Popen[str], str], str]:
    """Reads a process's output until a text occurs, and returns what was read."""

    def wait(process: subprocess.Popen[str], text: str) -> str:
        assert process.stdout is not None
        read = ""
        for line in process.stdout:
            read += line
            if text in line:
                return read
        raise AssertionError(f"{text!r} never came: {read}")

    return wait


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def training(
    training_on: Callable[[Path, Path], Training], tiny_store: Path, tmp_path: Path
) -> Training:
    """The trainer on the tiny store."""
    return training_on(tiny_store, tmp_path)


@pytest.fixture
def training_on(tiny_overrides: list[str]) -> Callable[[Path, Path], Training]:
    """The trainer on another store, in another folder."""
    return lambda store, folder: Training(store, folder, tiny_overrides)


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback that nobody listens at."""
    return free_port()


@pytest.fixture(scope="session")
def tiny_overrides(tiny_training: list[str]) -> list[str]:
    """What makes the guide's configurations small enough for a test."""
    return [*tiny_training, *SHORT]


@pytest.fixture(scope="session")
def sample_store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the sample of the real simulator; not to be changed."""
    path = tmp_path_factory.mktemp("sample") / "sample.zarr"
    return convert(shared / "calvin_sample", path, ConversionSettings(), num_workers=1).path
