"""Turn the written shards into a finished store, and let it appear by rename.

Several processes may do this at once, and each may be killed at any moment. Each builds a folder of
its own and only reads the written shards. The rename of one of them succeeds; the others find the
store there.

Episodes with bad frames are left out here. Shards before the first such episode are linked as they
are; later ones are copied row by row. Nothing is computed again.
"""

import glob
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.data.plan import ConversionPlan, LeftOut
from langsteer.data.shard_writer import bad_episodes
from langsteer.data.store import FORMAT, partial_path, schema
from langsteer.data.store_writer import create_arrays, disk_errors, write_metadata
from langsteer.data.zarr_arrays import open_array, read_attributes, shard_file_name
from langsteer.errors import UserError
from langsteer.files import TRASH, discard, replacing, sync, trash_name
from langsteer.reading import read_json
from langsteer.records import problem


class Run(TypedDict):
    """What an unfinished store says of its conversion."""

    format: str
    fingerprint: str
    run: str


_RUN = "run.json"
_NEW = ".new-"  # part of the names of folders beside a store that are being made
_OLD_SECONDS = 3600.0


def publish(plan: ConversionPlan, partial: Path, path: Path, overwrite: bool) -> None:
    """Turn the fully written ``partial`` into the store at ``path``.

    Raises:
        UserError: no episode is good, or something at ``path`` may not be replaced.
        OSError: the disk refuses.
    """
    run = read_run(partial)["run"]
    final = partial / f"final-{uuid.uuid4().hex}"
    # A name of its own, so that processes that publish at once do not meet in one folder.
    try:
        _build(plan, partial, final, run)
        _swap(final, path, run, overwrite)
    except (OSError, UserError):
        # Another process may have been faster and cleared the unfinished store away.
        if run_of(path) != run:
            raise
    discard(partial)
    sweep(path)


def start(plan: ConversionPlan, partial: Path) -> None:
    """Create the unfinished store at ``partial``, by one rename; the first process wins.

    Raises OSError if the disk refuses.
    """
    new = partial.with_name(f".{partial.name}{_NEW}{uuid.uuid4().hex}")
    create_arrays(new, plan.pipeline, plan.n_frames, plan.settings.arrays, plan.frames_per_shard)
    (new / "done").mkdir()
    run = {"format": FORMAT, "fingerprint": plan.fingerprint, "run": uuid.uuid4().hex}
    with replacing(new / _RUN) as temporary:
        temporary.write_text(json.dumps(run), encoding="utf-8")
    try:
        new.rename(partial)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not (partial / _RUN).is_file():
            raise


def read_run(partial: Path) -> Run:
    """The fingerprint and the name of the run of an unfinished store.

    Raises OSError or ValueError if it is none.
    """
    run: Run = read_json(partial / _RUN)
    if problem(run, Run) or run["format"] != FORMAT:
        raise ValueError("not an unfinished store")
    return run


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a finished store's plan, if there is one."""
    return _conversion_attributes(path).get("fingerprint")


def has_leftovers(path: Path) -> bool:
    """Whether a process was killed while deleting something beside a store."""
    return any(_beside(path, TRASH))


def _beside(path: Path, kind: str) -> Iterator[Path]:
    return path.parent.glob(f".{glob.escape(path.name)}*{kind}*")


def sweep(path: Path) -> None:
    """Delete the remains of killed processes beside a finished store."""
    for doomed in _beside(path, TRASH):
        shutil.rmtree(doomed, ignore_errors=True)
    for doomed in _beside(path, _NEW):
        # A young one may belong to a process that begins right now.
        with suppress(OSError):
            if time.time() - doomed.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(doomed, ignore_errors=True)
    partial = partial_path(path)
    with suppress(FileNotFoundError, NotADirectoryError):  # perhaps another process sweeps too
        if not any(entry.is_file() for entry in partial.iterdir()):
            # A process wrote on here without noticing that another had finished its work.
            discard(partial)


def run_of(path: Path) -> str | None:
    """The run of a finished store, if there is one."""
    return _conversion_attributes(path).get("run")


def _conversion_attributes(path: Path) -> dict[str, Any]:
    """The attributes `_provenance` wrote into a finished store; empty if it is none."""
    try:
        found = read_attributes(path).get("conversion")
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _build(plan: ConversionPlan, partial: Path, final: Path, run: str) -> None:
    """Build the finished store in the folder ``final``."""
    # The markers of all shards name the bad episodes: only now is the list complete.
    bad = bad_episodes(partial, len(plan.table))
    keep = np.ones(len(plan.table), dtype=np.bool_)
    keep[list(bad)] = False
    left_out = [*plan.left_out, *(plan.describe(k, reason) for k, reason in sorted(bad.items()))]
    if not keep.any():
        reasons = "\n  ".join(map(str, left_out[:20]))
        raise UserError(f"{', '.join(map(str, plan.roots))}: no episode is good:\n  {reasons}")
    lengths = (plan.episode_ends - plan.episode_starts)[keep]
    # Rows move up by the rows left out before them.
    ends = np.cumsum(lengths, dtype=np.int64)
    n_frames = int(ends[-1])
    create_arrays(final, plan.pipeline, n_frames, plan.settings.arrays, plan.frames_per_shard)
    shift = plan.episode_starts[keep] - (ends - lengths)
    for name in plan.settings.arrays:
        for start in range(0, n_frames, plan.frames_per_shard):
            rows = np.arange(start, min(start + plan.frames_per_shard, n_frames))
            origin = rows + shift[np.searchsorted(ends, rows, side="right")]
            _transfer(plan, name, partial, final, rows, origin)
        sync(final / "data" / name)  # nobody else flushes these entries: links and copies
    # The root's attributes come last: with them the folder is a store.
    attributes = {"conversion": {"run": run, **_provenance(plan, left_out)}}
    write_metadata(final, plan.pipeline, ends, plan.table.select(keep), attributes)


@disk_errors()
def _transfer(
    plan: ConversionPlan,
    name: str,
    partial: Path,
    final: Path,
    rows: NDArray[np.int64],
    origin: NDArray[np.int64],
) -> None:
    """Make one shard of the finished array from the written rows ``origin``; or OSError."""
    shard = int(rows[0]) // plan.frames_per_shard
    # An unchanged shard is the same file: a link costs neither time nor room.
    if len(rows) == len(plan.shard_rows(shard)) and np.array_equal(rows, origin):
        _link_shard(name, shard, partial, final, 1 + len(schema(name, plan.pipeline).row))
        return
    written = open_array(partial, name)
    runs = np.split(origin, np.flatnonzero(np.diff(origin) != 1) + 1)
    values = [written[int(run[0]) : int(run[-1]) + 1].read().result() for run in runs]
    target = open_array(final, name, write=True)[int(rows[0]) : int(rows[-1]) + 1]
    target.write(np.concatenate(values)).result()


def _link_shard(name: str, shard: int, partial: Path, final: Path, n_axes: int) -> None:
    """Link a shard's file into the new store; copy it if the file system has no links."""
    file = Path("data") / name / shard_file_name(shard, n_axes)
    source, target = partial / file, final / file
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def _provenance(plan: ConversionPlan, left_out: list[LeftOut]) -> dict[str, Any]:
    """The origin of the store, for its attributes."""
    return {
        "fingerprint": plan.fingerprint,
        "source": _place_of(plan.roots),
        "settings": plan.settings.to_dict(),
        "left_out": [entry._asdict() for entry in left_out],
    }


def _place_of(roots: Sequence[Path]) -> str | list[str]:
    """The place of one dataset, or of each of several."""
    places = [str(root.resolve()) for root in roots]
    return places[0] if len(places) == 1 else places


def _swap(final: Path, path: Path, run: str, overwrite: bool) -> None:
    """Let the finished store appear at ``path``; an old one goes only now."""
    sync(final)
    # Without anything to replace one rename is enough.
    if not (overwrite and path.exists()) or run_of(path) == run:
        final.rename(path)  # fails on a folder with content
        return sync(path.parent)
    # The old store steps aside before the new one appears, and comes back if that fails.
    old = trash_name(path)
    path.rename(old)
    try:
        final.rename(path)
    except OSError:
        old.rename(path)
        raise
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)
