"""A tiny store, and the real trainer on it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stores import write_store
from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from tests.trainings import Training, free_port

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
