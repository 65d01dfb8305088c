"""What the runs of all evaluations share: policy and simulator, the folder and its files.

Example::

    folder = open_run(settings.output_dir, "outputs/experiments", settings.identity())
    write_csv(folder / "episodes.csv", ("episode", "success"), results)
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langsteer.files import replacing
from langsteer.provenance import git_commit
from langsteer.resumable import settle_settings
from langsteer.settings import Count, Natural, Settings
from langsteer.steering.config import SteeringConfig

_NO_PART_OF_RESULTS = ("num_workers", "shard", "output_dir", "annotations")


@dataclass(frozen=True)
class PolicySettings(Settings, prefix="policy."):
    """A checkpoint, and whether its averaged weights are run."""

    ckpt_path: str | None = None
    use_ema: bool = True


@dataclass(frozen=True)
class EnvSettings(Settings, prefix="env."):
    """The simulator; see ``conf/env/calvin.yaml``."""

    scene: str = "builtin"
    assets_path: str | None = None
    renderer: str = "depth"
    led_reset: str = "head"


@dataclass(frozen=True)
class RunSettings(Settings):
    """What every evaluation is told; see ``conf/``."""

    env: EnvSettings
    seed: Natural
    max_steps: Count
    videos: Natural
    num_workers: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    output_dir: str | None

    def identity(self) -> dict[str, Any]:
        """What the results depend on, in plain values: not on processes, jobs and folders.

        Raises:
            UserError: a file is missing or damaged.
        """
        from langsteer.policies.loading import precision_name  # PyTorch

        values = {k: v for k, v in self.to_dict().items() if k not in _NO_PART_OF_RESULTS}
        precision = precision_name(self.precision, self.device)
        return {**values, "precision": precision, "commit": git_commit()}


@dataclass(frozen=True)
class PlaySettings(RunSettings):
    """An evaluation of one policy."""

    policy: PolicySettings
    steering: SteeringConfig

    def identity(self) -> dict[str, Any]:
        """`RunSettings.identity`, and the checkpoint's."""
        from langsteer.policies.loading import checkpoint_identity  # PyTorch

        checkpoint = checkpoint_identity(self.policy.ckpt_path)
        return {**super().identity(), "checkpoint": checkpoint}


def open_run(
    output_dir: str | None, root: str, identity: Mapping[str, Any], what: str = ""
) -> Path:
    """The folder of a run; an earlier run of the same settings is continued.

    Args:
        output_dir: the folder; by default ``<root>/<experiment>_<checkpoint>_<what>_<digest>``.
        root: of the kind of evaluation.
        identity: what the results depend on; kept as ``settings.json``.
        what: is played.

    Raises:
        UserError: it holds a run of other settings; they are listed.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    checkpoint = Path(identity["checkpoint"]["path"])
    parts = [checkpoint.parent.name, checkpoint.stem, what, digest]
    folder = Path(output_dir or f"{root}/{'_'.join(part for part in parts if part)}")
    remedy = "choose another output_dir, or remove that folder"
    settle_settings(folder / "settings.json", identity, remedy)
    return folder


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each row, lists joined by spaces."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            cells = (row[column] for column in columns)
            writer.writerow([" ".join(cell) if isinstance(cell, list) else cell for cell in cells])
