"""Checkpoints: complete, never half-written, the best ones kept.

``outputs/checkpoints/<experiment>/`` holds ``epoch_0050.ckpt`` and so on, ``latest.ckpt`` (the
newest of all, also mid-epoch) and ``best.ckpt``. The last two are further names of the same files
and cost no second copy. ``checkpoints.json`` holds the validation loss of each epoch's file.

Example::

    manager = CheckpointManager(folder, top_k=3)
    manager.save_epoch(payload, epoch=50, val_loss=0.012)
    manager.wait()
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from langsteer import __version__
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.provenance import git_commit
from langsteer.reading import read_json
from langsteer.records import problem
from langsteer.training.checkpoint_reading import LATEST, age, read_training_checkpoint

BEST = "best.ckpt"
INDEX = "checkpoints.json"
_EPOCH_FILE = re.compile(r"epoch_[0-9]+\.ckpt")


class CheckpointManager:
    """Writes an experiment's checkpoints in the background, one at a time.

    `save_epoch` and `save_latest` return once the payload is copied to the host's memory. The next
    call, or `wait`, raises an error of the writing.

    Args:
        folder: the experiment's.
        top_k: number of epochs' files to keep: the best by validation loss, or the newest without
            validation.
    """

    def __init__(self, folder: Path, top_k: int) -> None:
        self.folder = folder
        self.top_k = top_k
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save_epoch(self, payload: dict[str, Any], epoch: int, val_loss: float | None) -> None:
        """Write ``epoch_<epoch>.ckpt``, make it the latest, drop files no longer among the best.

        ``epoch`` counts completed epochs.
        """
        self._start(lambda copy: self._write_epoch(copy, epoch, val_loss), payload)

    def save_latest(self, payload: dict[str, Any]) -> None:
        """Write ``latest.ckpt`` alone, e.g. in the middle of an epoch."""
        self._start(lambda copy: _write(copy, self.folder / LATEST), payload)

    def wait(self) -> None:
        """Until all is on disk; raises an error of the writing."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise an error of the writing so far, without waiting."""
        if self._error is not None:
            error, self._error = self._error, None
            raise UserError(f"{self.folder}: the checkpoint was not written: {error}") from error

    def _start(self, write: Callable[[dict[str, Any]], None], payload: dict[str, Any]) -> None:
        # Two writers would race for the names, and hold two copies.
        self.wait()
        # The next step changes the weights while the file is written: the writer gets its own.
        copy = on_host(payload)
        # Not a daemon: the interpreter waits for it before it exits.
        self._thread = threading.Thread(target=self._guarded, args=(write, copy))
        self._thread.start()

    def _guarded(self, write: Callable[[dict[str, Any]], None], copy: dict[str, Any]) -> None:
        try:
            write(copy)
        except BaseException as error:  # to be raised by the trainer's own thread
            self._error = error

    def _write_epoch(self, payload: dict[str, Any], epoch: int, val_loss: float | None) -> None:
        name = f"epoch_{epoch:04d}.ckpt"
        index = self.index() | {name: val_loss}
        # The index first: after a kill at any line it knows every file of the folder.
        self._write_index(index)
        _write(payload, self.folder / name)
        # Links: both names of the newest file exist at once, and no name ever lacks its file.
        _link_or_copy(self.folder / name, self.folder / LATEST)
        self._keep_best(index)

    def _keep_best(self, index: dict[str, float | None]) -> None:
        """Give the best file its second name, and delete those no longer among the best."""
        kept = _best(index, self.top_k)
        # Files go last, after their successors are in place.
        _link_or_copy(self.folder / kept[0], self.folder / BEST)
        for key in index.keys() - set(kept):
            (self.folder / key).unlink()
        self._write_index({key: index[key] for key in kept})

    def settle(self) -> None:
        """Do what the last save would have done, had it not been killed.

        A run with nothing left to train saves no more: without this its folder would stay untidy.
        """
        index = self.index()
        if not index:
            return
        newest, latest = self.folder / max(index, key=_epoch_of), self.folder / LATEST
        if not latest.exists() or (
            not latest.samefile(newest) and _age_of(newest) > _age_of(latest)
        ):
            _link_or_copy(newest, latest)
        self._keep_best(index)

    def index(self) -> dict[str, float | None]:
        """File name to validation loss of the kept epochs' checkpoints.

        If the list is damaged, the files themselves are read.
        """
        index = self._listed()
        if index is None:
            index = {path.name: _val_loss(path) for path in self.folder.glob("epoch_*.ckpt")}
        return {name: loss for name, loss in index.items() if (self.folder / name).exists()}

    def _listed(self) -> dict[str, float | None] | None:
        """The list; None if it is damaged. Only names of epochs count: some are deleted."""
        path = self.folder / INDEX
        if not path.exists():
            return {}
        try:
            found = read_json(path)
        except (ValueError, OSError):
            return None
        if problem(found, dict[str, float | None]):
            return None
        return {name: loss for name, loss in found.items() if _EPOCH_FILE.fullmatch(name)}

    def _write_index(self, index: dict[str, float | None]) -> None:
        with replacing(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1))


def _best(index: dict[str, float | None], count: int) -> list[str]:
    """The ``count`` best names, best first: by loss if measured, else the newest."""
    measured = sorted((loss, name) for name, loss in index.items() if loss is not None)
    if measured:
        return [name for _, name in measured[:count]]
    return sorted(index, key=_epoch_of, reverse=True)[:count]


def _val_loss(path: Path) -> float | None:
    """The validation loss that a checkpoint remembers."""
    try:
        loss = read_training_checkpoint(path)["metrics"].get("val_loss")
    except UserError:
        return None
    return None if loss is None else float(loss)


def _age_of(path: Path) -> tuple[str, int, bool]:
    """`age` of a file; one that cannot be read is the oldest."""
    try:
        return age(read_training_checkpoint(path), path)
    except UserError:
        return "", -1, False


def _epoch_of(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def on_host(value: Any) -> Any:  # noqa: ANN401 - nested containers
    """Copies of all tensors in the CPU's memory, out of reach of the training."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_host(item) for key, item in value.items()}
    return [on_host(item) for item in value] if isinstance(value, list | tuple) else value


def _write(payload: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        torch.save(payload, temporary)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a copy if the file system has no hard links."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def provenance() -> dict[str, Any]:
    """The origin of a checkpoint: versions, the source's commit, the time."""
    return {
        "langsteer": __version__,
        "git_commit": git_commit(),
        "torch": str(torch.__version__),  # its own class is refused by weights_only
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
