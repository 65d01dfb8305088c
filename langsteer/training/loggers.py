"""Logs of a run's numbers: always to local files, to Weights & Biases on request.

The experiment's folder gets ``metrics.jsonl`` (one JSON object a line), ``train.log`` and
``curves.png``. A resumed run drops the records after its checkpoint, so none occurs twice.

Example::

    log = RunLogger(folder, keep=0, wandb=NoWandb())
    log.metrics({"step": 10, "epoch": 0, "loss": 0.3})
    log.close()
"""

import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.reading import read_text
from langsteer.training.config import WandbConfig
from langsteer.training.curves import DRAWN, Record, draw_curves

METRICS = "metrics.jsonl"
_LONGEST_ID = 1000
_FLAT = ("train_loss", "val_loss", "learning_rate", "epoch")
"""What the training guide promises in W&B, under these names."""
_BEST = {
    "val/loss": "min",
    "val/position_error_mm": "min",
    "val/rotation_error_deg": "min",
    "val/gripper_accuracy": "max",
}
"""What the summary of a run in W&B shows of its course: the best, not the last."""


class MetricsSink(Protocol):
    """Takes a run's numbers besides the local files."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record; ``step`` is its optimiser step."""

    def video(self, path: Path, caption: str, step: int) -> None:
        """Take a film of the policy after an optimiser step."""

    def close(self) -> None:
        """No more records come."""


class NoWandb:
    """Stands in for W&B, so that nobody has to ask whether it is wanted."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def video(self, path: Path, caption: str, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Wandb:
    """A run of Weights & Biases, under the same id again after a resume.

    If W&B fails later, a warning says so once, and the local files go on alone. A scheduler's
    SIGTERM to all processes of a job has this effect: W&B's own process ends at once.
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        settings: Mapping[str, Any],
        say: logging.Logger,
    ) -> None:
        import wandb

        self._say, self._works = say, True
        id_file = folder / "wandb_run_id.txt"
        if not id_file.exists():
            with replacing(id_file) as temporary:
                temporary.write_text(secrets.token_hex(8))
        self.run = wandb.init(
            project=config.project,
            entity=config.entity,
            # None leaves it to WANDB_MODE of the environment.
            mode="offline" if config.mode == "offline" else None,
            name=folder.name,
            id=read_text(id_file, _LONGEST_ID).strip(),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )
        for name, best in _BEST.items():
            self._try(partial(self.run.define_metric, name, summary=best))

    def log(self, record: Mapping[str, Any]) -> None:
        """Log under the record's step."""
        self._try(lambda: self.run.log(in_groups(record), step=record["step"]))

    def video(self, path: Path, caption: str, step: int) -> None:
        """Show a film under ``val/video``."""
        import wandb

        self._try(
            lambda: self.run.log(
                {"val/video": wandb.Video(str(path), caption=caption, format="mp4")}, step=step
            )
        )

    def close(self) -> None:
        """Upload what is left."""
        self._try(self.run.finish)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:  # any fault of a service must not cost a night of training
            self._works = False
            self._say.warning("W&B stopped working (%s): logging to local files only", error)


def in_groups(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record under W&B's groups ``train/`` and ``val/``; the guide's keys stand flat, too."""
    grouped = {_in_group(key): value for key, value in record.items()}
    return grouped | {key: record[key] for key in _FLAT if key in record}


def _in_group(key: str) -> str:
    return f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}"


def make_wandb(
    config: WandbConfig, folder: Path, settings: Mapping[str, Any], say: logging.Logger
) -> MetricsSink:
    """W&B as configured. If it is missing or out of reach, training goes on without it."""
    if not config.enabled or os.environ.get("WANDB_MODE") == "disabled":
        return NoWandb()
    try:
        return Wandb(config, folder, settings, say)
    except ImportError:
        say.warning(
            "wandb is not installed: logging to local files only. "
            "(pip install 'langsteer[wandb]', or training.wandb.enabled=false)"
        )
    except Exception as error:  # any fault of a service must not cost a night of training
        say.warning(
            "W&B cannot be used (%s): logging to local files only. (wandb login, or "
            "training.wandb.mode=offline, or training.wandb.enabled=false)",
            error,
        )
    return NoWandb()


class RunLogger:
    """Writes a run's records to ``metrics.jsonl``, W&B and, at each validation, ``curves.png``.

    Args:
        folder: the experiment's.
        keep: number of records of an earlier part of the run to keep; 0 for a new run.
        wandb: a further sink of the records.

    Attributes:
        kept: number of records kept; fewer than ``keep`` if the folder is not the one they were
            made in.
    """

    def __init__(self, folder: Path, keep: int, wandb: MetricsSink) -> None:
        self.path = folder / METRICS
        self.wandb = wandb
        kept = read_metrics(self.path)[:keep] if self.path.exists() else []
        self.kept = len(kept)
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._curves: list[Record] = [_drawn(record) for record in kept]

    def metrics(self, record: Record) -> None:
        """Log one record; it is on its way to disk when this returns."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._curves.append(_drawn(record))
        self.wandb.log(record)

    def video(self, path: Path, caption: str, step: int) -> None:
        """Show a film, where W&B is wanted; the file stays."""
        self.wandb.video(path, caption, step)

    def sync(self) -> None:
        """Flush all records to the disk."""
        os.fsync(self._file.fileno())

    def draw_curves(self) -> None:
        """Write ``curves.png`` of all records so far, without reading them again."""
        draw_curves(self._curves, self.path.with_name("curves.png"))

    def close(self) -> None:
        """End the files."""
        self._file.close()
        self.wandb.close()


def _drawn(record: Record) -> Record:
    """The numbers of a record to draw. Keeping whole records of a long run would take much
    memory."""
    return {key: record[key] for key in ("step", *DRAWN) if key in record}


def read_metrics(path: Path) -> list[Record]:
    """All complete records of a ``metrics.jsonl``, without a line cut off by a kill.

    Raises:
        UserError: it is another kind of file.
        OSError: it cannot be read.
    """
    records = []
    try:
        lines = read_text(path).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text ({error}); move it away") from error
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def text_logger(folder: Path | None) -> logging.Logger:
    """The run's plain log: to stdout and, given a folder, to its ``train.log``.

    Other ranks than 0 give None and stay silent but for warnings.
    """
    logger = logging.getLogger("langsteer.training")
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(folder / "train.log", encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error}); set training.checkpoint_dir"
            ) from error
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO if folder is not None else logging.WARNING)
    return logger
