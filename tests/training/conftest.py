"""A tiny store and a way to run the real trainer on it in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import EpisodeTable, write_store

ROOT = Path(__file__).resolve().parents[2]
POINTS = 32
TINY = [
    "training=dp3_debug",
    "policy=simple_dp3",
    "policy.down_dims=[16,32]",
    "policy.point_widths=[8,16,32]",
    "policy.encoder_output_dim=8",
    "policy.diffusion_step_embed_dim=16",
    "training.device=cpu",
    "training.num_workers=0",
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
    ends = np.cumsum(lengths)
    states = random.uniform(-1, 1, (ends[-1], 15)).astype(np.float32)
    clouds = random.uniform(-0.4, 0.4, (ends[-1], POINTS, 6)).astype(np.float32)
    clouds[..., 3:] = np.abs(clouds[..., 3:])
    actions = np.tanh(states[:, :7] * 2 + clouds[:, :7, 0])
    episodes = EpisodeTable(
        split=np.array(splits),
        task=np.array(["open_drawer"] * len(lengths)),
        instruction=np.array(["open the drawer"] * len(lengths)),
        first_frame=ends - lengths,
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


@pytest.fixture
def store_factory() -> Callable[..., Path]:
    """`make_store`, for tests that want another one."""
    return make_store


class TrainingProcess:
    """Runs ``scripts/train_dp3.py`` for one store, with the tiny policy."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.store, self.folder = store, folder

    def command(self, *overrides: str, ranks: int = 1) -> list[str]:
        """The command line; with more ranks through torchrun on loopback."""
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
            launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        script = str(ROOT / "scripts" / "train_dp3.py")
        return [*launcher, script, *TINY, f"training.checkpoint_dir={self.folder}", *overrides]

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
        return subprocess.Popen(
            self.command(*overrides, ranks=ranks),
            env=self.environment(**environment),
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

    def latest(self, experiment: str) -> dict:
        """The content of an experiment's newest checkpoint."""
        return torch.load(self.folder / experiment / "latest.ckpt", weights_only=True)


@pytest.fixture
def training(tiny_store: Path, tmp_path: Path) -> TrainingProcess:
    """The trainer's process on the tiny store."""
    return TrainingProcess(tiny_store, tmp_path)


@pytest.fixture
def training_on() -> Callable[[Path, Path], TrainingProcess]:
    """The trainer's process on another store, in another folder."""
    return TrainingProcess
