"""Measure the data loader: against the usual pipeline, and at ten times the data.

    python benchmarks/loader.py [--frames 3000] [--times 10]

The usual pipeline is what DP3's reference does, as fast as NumPy allows: all arrays are read into
memory, a sample is a slice of each over the sixteen frames of the horizon, XYZRGB, padded at an
episode's ends, and samples are collated one by one. Its data come from plain ``.npy`` files here,
which is kinder to its start-up than a Zarr. Ours reads the XYZ of the two observation frames from
the store. Both give batches of 128 without worker processes, in a fresh process each; the page
cache is warm. Start-up is from opening the data to the first batch, without imports. The rate is of
an epoch, by the processor's time (user and system), which others on the machine hardly disturb.
"""

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store
from langsteer.data.store_writer import create_arrays, write_metadata
from langsteer.data.zarr_arrays import open_array
from langsteer.policies.dp3 import DP3Config
from langsteer.training.calvin_dataset import CalvinData, train_loader
from langsteer.training.config import TrainingDatasetConfig
from langsteer.training.sampler import Schedule

BATCH, HORIZON, EPISODE = 128, 16, 60
ROW_SHAPES = {"point_cloud": (2048, 6), "state": (15,), "action": (7,)}
ROWS_AT_ONCE = 1024


class UsualDataset(Dataset[dict[str, Any]]):
    """All in memory; one window of whole frames at a time, as the reference samples."""

    def __init__(self, folder: Path) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy") for name in ROW_SHAPES}
        ends = np.arange(EPISODE, len(self.arrays["state"]) + 1, EPISODE)
        self.windows = [
            (start, int(end) - EPISODE, int(end))
            for end in ends
            for start in range(int(end) - EPISODE - 1, int(end) - HORIZON + 8)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start, first, end = self.windows[index]
        inside = slice(max(start, first), min(start + HORIZON, end))
        sample = {}
        for name, array in self.arrays.items():
            window = np.empty((HORIZON, *array.shape[1:]), array.dtype)
            before, after = inside.start - start, inside.stop - start
            window[before:after] = array[inside]
            window[:before], window[after:] = array[inside.start], array[inside.stop - 1]
            sample[name] = torch.from_numpy(window)
        return sample


def usual(folder: Path) -> tuple[Iterator[Any], int]:
    """Batches of the usual pipeline, and samples of an epoch."""
    data = UsualDataset(folder)
    return iter(DataLoader(data, BATCH, shuffle=True)), len(data)


def ours(folder: Path) -> tuple[Iterator[Any], int]:
    """Batches of our loader, noise and timesteps included, and samples of an epoch."""
    store = open_store(folder / "store.zarr")
    data = CalvinData(store, DP3Config(), TrainingDatasetConfig(val_ratio=0.0), seed=0)
    schedule = Schedule(len(data.train), BATCH, 1, seed=0)
    return train_loader(data, schedule, 0, 0, num_epochs=1, num_workers=0), len(data.train)


def make_data(folder: Path, frames: int) -> None:
    """The same random frames as plain arrays and as a store, written in pieces."""
    pipeline = ObservationPipeline()
    create_arrays(folder / "store.zarr", pipeline, frames, tuple(ROW_SHAPES))
    random = np.random.default_rng(0)
    for name, shape in ROW_SHAPES.items():
        plain = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(frames, *shape)
        )
        array = open_array(folder / "store.zarr", name, write=True)
        for first in range(0, frames, ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, frames))
            plain[rows] = random.random((rows.stop - first, *shape), dtype=np.float32)
            array[rows].write(plain[rows]).result()
    ends = np.arange(EPISODE, frames + 1, EPISODE)
    blank = np.array([""] * len(ends))
    table = EpisodeTable(
        split=np.array(["training"] * len(ends)),
        task=blank,
        instruction=blank,
        first_frame=ends - EPISODE,
        group=np.arange(len(ends)),
    )
    write_metadata(folder / "store.zarr", pipeline, ends, table)


def measure(pipeline: Callable[[Path], tuple[Iterator[Any], int]], folder: Path) -> dict[str, Any]:
    """Start-up, memory, bytes of a batch, and samples a second of processor time."""
    before = resident_megabytes()
    start = time.perf_counter()
    batches, samples = pipeline(folder)
    first = next(batches)
    ready, busy = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    seconds = time.process_time() - busy
    return {
        "start_up": ready - start,
        "rate": (samples - BATCH) / seconds,
        "memory": resident_megabytes() - before,
        "batch": tensor_bytes(first) / 1e6,
    }


def resident_megabytes() -> float:
    """Memory that this process holds."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def tensor_bytes(value: object) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(tensor_bytes, value.values())) if isinstance(value, dict) else 0


def warm(folder: Path) -> None:
    """Read every file once."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--times", type=int, default=10, help="size of the larger dataset")
    parser.add_argument("--scratch", type=Path, help="folder for temporary data")
    options = parser.parse_args()
    print(f"{'':24}{'start-up':>10}{'samples/s':>11}{'memory':>10}{'a batch':>10}")
    for frames in (options.frames, options.frames * options.times):
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            make_data(Path(scratch), frames)
            warm(Path(scratch))
            rates = []
            for name, pipeline in (("usual", usual), ("langsteer", ours)):
                # A process of its own, so that neither pays for the other's memory.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found = pool.apply(measure, (pipeline, Path(scratch)))
                rates.append(found["rate"])
                row = f"{name}, {frames} frames"
                print(
                    f"{row:24}{found['start_up']:8.2f} s{found['rate']:11.0f}"
                    f"{found['memory']:7.0f} MB{found['batch']:7.1f} MB",
                    flush=True,
                )
            print(f"{'ratio of samples/s':24}{rates[1] / rates[0]:21.0f}", flush=True)


if __name__ == "__main__":
    main()
