"""Find and read the checkpoints of a training, to go on from them.

Example::

    folder = find_experiment(Path("outputs/checkpoints"), None, "dp3_calvin")
    path, payload = newest_checkpoint(folder, print)
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch

from langsteer.errors import UserError
from langsteer.policies.loading import read_checkpoint
from langsteer.records import problem
from langsteer.settings import Bound, Natural64

LATEST = "latest.ckpt"
"""The newest checkpoint of an experiment has this name, too."""

_Number = Annotated[Any, Bound(lambda value: type(value) in (int, float), "a number")]


class _Progress(TypedDict):
    epoch: Natural64
    step_in_epoch: Natural64
    step: Natural64
    records: Natural64
    unlogged_loss: _Number
    unlogged_steps: Natural64
    epoch_loss: _Number
    ema_updates: Natural64


class _Data(TypedDict):
    windows: str
    effective_batch_size: Natural64


class _Config(TypedDict):
    training: dict[str, Any]


class _Provenance(TypedDict):
    created: str


class _Random(TypedDict):
    torch: torch.Tensor


class _Training(TypedDict):
    """What resuming reads of a checkpoint, besides what inference does."""

    config: _Config
    data: _Data
    optimizer: Any
    progress: _Progress
    rng: _Random
    metrics: dict[str, _Number]
    provenance: _Provenance


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest readable checkpoint of an experiment, and its content.

    The time recorded in a checkpoint decides; copying a file does not change it. ``latest.ckpt`` is
    not always the newest: a kill right after an epoch's file leaves it behind. Steps do not decide:
    a run may have gone back to an earlier epoch. A damaged checkpoint is skipped for the one before
    it, and ``say`` is told.

    Raises:
        UserError: none can be read.
    """
    found: list[tuple[tuple[str, int, bool], Path]] = []
    damaged: list[str] = []
    # A first look at all candidates reads their records alone, mapped: no weights are loaded.
    for path in (*folder.glob("epoch_*.ckpt"), folder / LATEST):
        if not path.exists():
            continue
        try:
            found.append((age(read_training_checkpoint(path), path), path))
        except UserError as error:
            say(f"passing over a checkpoint that cannot be read: {error}")
            damaged.append(path.name)
    # Then the newest is verified whole. Bits can flip on disk: fall back one file at a time.
    for _, path in sorted(found, reverse=True):
        try:
            return path, verified_checkpoint(path)
        except UserError as error:
            say(f"passing over a checkpoint that cannot be read: {error}")
            damaged.append(path.name)
    why = f"{', '.join(damaged)} cannot be read" if damaged else "there is none"
    raise UserError(f"{folder}: no checkpoint to resume from: {why}")


def age(payload: dict[str, Any], path: Path) -> tuple[str, int, bool]:
    """Greater for a later checkpoint; of two names of one file, for the latest."""
    created = payload["provenance"]["created"]
    return created, payload["progress"]["step"], path.name == LATEST


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint to resume training from. Its file is mapped: no tensor is read yet.

    Raises:
        UserError: it is missing or damaged, or training did not write it.
    """
    payload = read_checkpoint(path, mmap=True)
    wrong = problem(payload, _Training)
    if wrong:
        raise UserError(f"{path}: training cannot go on from it: {wrong}")
    return payload


def verified_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint with every byte verified; reading it alone misses flipped bits.

    Raises:
        UserError: it is missing or damaged.
    """
    payload = read_training_checkpoint(path)
    with zipfile.ZipFile(path) as archive:  # what torch.save writes, checksums included
        try:
            broken = archive.testzip()
        except zipfile.BadZipFile as error:
            broken = str(error)
    if broken is not None:
        raise UserError(f"{path}: damaged: the checksum of {broken} is wrong")
    return payload


def find_experiment(root: Path, name: str | None, base_name: str) -> Path | None:
    """The folder to resume: the one named, else the newest ``<base_name>_<date>``.

    A folder without a checkpoint does not count.
    """
    dated = re.compile(re.escape(base_name) + r"_\d{8}(_\d+)?")
    if name is not None:
        folders = [root / name]
    else:
        folders = [folder for folder in root.glob("*") if dated.fullmatch(folder.name)]
    with_time = [(newest, folder) for folder in folders if (newest := _newest_time(folder))]
    return max(with_time)[1] if with_time else None


def _newest_time(folder: Path) -> float | None:
    return max((path.stat().st_mtime for path in folder.glob("*.ckpt")), default=None)
