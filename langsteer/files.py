"""Files, never half-written: they appear by rename after fsync.

Example::

    with replacing("outputs/results.json") as temporary:
        temporary.write_text("{}")
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes its place when the block ends well.

    The file is flushed to disk before the rename and its folder after it. So a crash at any moment
    leaves either the old file or the new one. Parent folders are made. On an exception the
    temporary file is removed and ``path`` is left as it was.

    Args:
        path: of the file.
        durable: False leaves the flushing to the caller, who calls `sync` on many files at once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        # The rename is atomic: a reader sees the old file or the new one.
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, object], indent: int | None = 1) -> None:
    """Write plain values as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent), encoding="utf-8")


def create_once(path: Path, text: str) -> None:
    """Write a file, whole, if there is none; of several processes the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        _link(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Give a file another name; a name in use is left alone."""
    try:
        os.link(source, target)  # unlike a rename it replaces nothing
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        source.replace(target)


def remove_temporary(folder: Path, older_than: float = 0.0) -> None:
    """Remove the temporary files of `replacing` and `create_once` that killed processes left.

    Args:
        folder: holds them; nobody else may write there now.
        older_than: seconds; where somebody else may, files that old are nobody's.
    """
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):  # perhaps another process removes it, too
            if time.time() - file.stat().st_mtime >= older_than:
                file.unlink()


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk (``fsync``)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


TRASH = ".trash-"
"""Part of the names of folders during their deletion, beside the original."""


def trash_name(folder: Path) -> Path:
    """A new hidden name beside a folder, to rename it to before it is deleted."""
    return folder.with_name(f".{folder.name}{TRASH}{uuid.uuid4().hex}")


def discard(folder: Path) -> None:
    """Delete a folder; at no moment is a part of it left under its name."""
    doomed = trash_name(folder)
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
