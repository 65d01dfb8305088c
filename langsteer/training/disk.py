"""What a run's checkpoints need of the disk, said and checked before anything is trained.

Example::

    print(check_disk(settings, policy, folder))     # disk: ..., 80 GB free, checkpoints need ...
"""

import os
import shutil
from pathlib import Path

import torch

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config
from langsteer.training.config import TrainingConfig

_BYTES_PER_WEIGHT = 4  # float32, in checkpoints whatever training computes in


def check_disk(settings: TrainingConfig, policy: DP3Config, folder: Path) -> str:
    """Whether the checkpoints fit on the disk, as a line.

    Args:
        settings, policy: of the run.
        folder: the experiment's, or the one above it; checkpoints that it holds count as written.

    Raises:
        UserError: the place cannot be written, or has too little room.
    """
    folder = folder.resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: cannot be written; set training.checkpoint_dir")
    size = checkpoint_bytes(policy, settings.use_ema)
    # The best ones, the latest, and the one being written.
    needed, free = size * (settings.top_k + 2), shutil.disk_usage(existing).free
    if needed - _written(folder) > free:
        raise UserError(
            f"{folder}: {gigabytes(free)} free, {settings.top_k + 2} checkpoints of "
            f"{gigabytes(size)} need {gigabytes(needed)}; make room, set training.checkpoint_dir "
            "to another disk, or lower training.top_k"
        )
    return (
        f"disk: {folder}, {gigabytes(free)} free; a checkpoint is {gigabytes(size)}, all of them "
        f"need up to {gigabytes(needed)}"
    )


def _written(folder: Path) -> int:
    """Bytes of the checkpoints in a folder; several names of a file count once."""
    files = [path.stat() for path in folder.glob("*.ckpt")]
    return sum({file.st_ino: file.st_size for file in files}.values())


def checkpoint_bytes(policy: DP3Config, use_ema: bool) -> int:
    """About how large a checkpoint is: weights, their average, and AdamW's two moments."""
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in DP3(policy, {}).parameters())
    return weights * _BYTES_PER_WEIGHT * (4 if use_ema else 3)


def gigabytes(count: float) -> str:
    """Bytes for a reader: ``4.09 GB``, or MB below a tenth of one."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
