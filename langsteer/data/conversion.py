"""Convert a CALVIN folder to a store: in parallel, on many machines, safe against any kill.

The work is cut into shards (see `langsteer.data.shard_writer`), each a function of the plan. They
fill an unfinished store beside the final place, ``<path>.partial``. After the last shard the
finished store appears by rename. After a kill the same command writes the missing shards.

Example::

    summary = convert(Path("calvin_debug_dataset"), Path("data/debug.zarr"), ConversionSettings())
"""

import ctypes
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.plan import (
    ConversionPlan,
    LeftOut,
    is_harmless,
    make_plan,
)
from langsteer.data.publish import (
    fingerprint_of,
    has_leftovers,
    publish,
    read_run,
    run_of,
    start,
    sweep,
)
from langsteer.data.shard_writer import bad_episodes, is_done, write_shard
from langsteer.data.store import Store, is_store, open_store, partial_path, schema
from langsteer.errors import UserError
from langsteer.files import discard
from langsteer.interruption import interruptible
from langsteer.processes import CONTEXT, checked_workers, doers
from langsteer.progress import progress_bar
from langsteer.resumable import WHOLE, Share

_M_ARENA_MAX = -8  # malloc.h
# The share of raw bytes left by compression, measured on the sample and rounded down: a conversion
# is refused only if it cannot fit.
_COMPRESSED = {"img": 0.4, "depth": 0.5}


@dataclass(frozen=True)
class ConversionSummary:
    """The result of a run.

    Attributes:
        path: of the store.
        store: the finished store; None while shards of other jobs are missing.
        frames: rows converted by this run.
        seconds: of this run.
        shards_missing: number of shards other jobs still have to write.
        left_out: episodes not in the store.
    """

    path: Path
    store: Store | None
    frames: int
    seconds: float
    shards_missing: int
    left_out: tuple[LeftOut, ...]


def convert(
    roots: Path | Sequence[Path],
    path: Path,
    settings: ConversionSettings,
    overwrite: bool = False,
    num_workers: int | None = None,
    share: Share = WHOLE,
    strict: bool = False,
) -> ConversionSummary:
    """Convert a CALVIN folder to the store at ``path``, or go on doing so.

    Args:
        roots: the CALVIN folder, or several to mix into one store.
        path: the store appears here.
        settings: what to convert and how.
        overwrite: replace the store at ``path`` once the new one is whole. Unfinished work of the
            same settings is continued all the same; of others it is thrown away.
        num_workers: processes; None takes one for each core this process may use, 8 at most.
        share: this job's part of the shards, if several jobs fill one store together.
        strict: stop at the first episode to be left out.

    Raises:
        UserError: see the messages; an existing store is never harmed by it.
    """
    checked_workers(num_workers, 1)
    _keep_memory_together()
    plan = make_plan(roots, settings)
    # Nothing is written before the plan stands. It finds bad input in the metadata alone.
    if strict:
        _stop_at(plan.left_out)
    try:
        return _convert(plan, path, overwrite, num_workers, share, strict)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write ({error}). Choose another place or make it writable; what was "
            "converted so far is kept"
        ) from error


def dry_run(
    roots: Path | Sequence[Path], path: Path, settings: ConversionSettings
) -> ConversionPlan:
    """The plan of `convert`, and a check of the disk's room for it, without writing anything.

    Raises:
        UserError: the conversion could not be done.
    """
    plan = make_plan(roots, settings)
    place = path.resolve().parent
    _check_room(plan, next(folder for folder in (place, *place.parents) if folder.exists()))
    return plan


def _convert(
    plan: ConversionPlan,
    path: Path,
    overwrite: bool,
    num_workers: int | None,
    share: Share,
    strict: bool,
) -> ConversionSummary:
    """`convert` with a plan."""
    partial = partial_path(path)
    # The place of the result decides first: a finished store needs no work, or is in the way.
    began, frames = time.monotonic(), 0
    if overwrite or not _is_finished(plan, path, partial, share):
        # Make the unfinished store, or find one of the same plan to go on with.
        _prepare(plan, path, partial, overwrite)
        run = read_run(partial)["run"]
        try:
            # Each job writes its own shards, and only those without a marker.
            mine = list(share.of(range(plan.n_shards)))
            frames = _write_shards(plan, partial, mine, num_workers, strict)
            # The job that finds no shard missing publishes. Others leave the store to it.
            missing = sum(not is_done(partial, shard) for shard in range(plan.n_shards))
            if missing and run_of(path) != run:
                seconds = time.monotonic() - began
                return ConversionSummary(path, None, frames, seconds, missing, plan.left_out)
            # Frames can turn out bad while they are read: now all of them are known.
            if strict:
                bad = bad_episodes(partial, len(plan.table))
                _stop_at(tuple(plan.describe(*one) for one in bad.items()))
            publish(plan, partial, path, overwrite)
        except (OSError, UserError):
            # Another process of the same work may have finished it and cleared up behind us.
            if run_of(path) != run:
                raise
            sweep(path)
    store = open_store(path)
    left_out = tuple(LeftOut(**entry) for entry in store.attributes["conversion"]["left_out"])
    return ConversionSummary(path, store, frames, time.monotonic() - began, 0, left_out)


def _stop_at(left_out: tuple[LeftOut, ...]) -> None:
    """Raise `UserError` if an episode other than a mere repetition is left out."""
    harmful = [entry for entry in left_out if not is_harmless(entry)]
    if harmful:
        more = f" (and {len(harmful) - 1} more)" if len(harmful) > 1 else ""
        raise UserError(f"{harmful[0]}{more}; --strict stops here")


def _is_finished(plan: ConversionPlan, path: Path, partial: Path, share: Share) -> bool:
    """Whether the store is there already, as a result of this very conversion.

    Raises `UserError` if something else is there.
    """
    if not path.exists():
        return False
    same = fingerprint_of(path) == plan.fingerprint
    if same and (share.count > 1 or partial.exists() or has_leftovers(path)):
        # Another job was the last, or this one was killed between publishing and tidying up.
        discard(partial)
        sweep(path)
        return True
    what = "this conversion is complete" if same else "it holds something else"
    raise UserError(f"{path}: exists already ({what}); --overwrite replaces it")


def _prepare(plan: ConversionPlan, path: Path, partial: Path, overwrite: bool) -> None:
    """Leave an unfinished store of this plan at ``partial``."""
    if overwrite and path.exists() and not is_store(path):
        raise UserError(f"{path}: not a store of LangSteer, hence --overwrite does not replace it")
    if _continues(plan, partial) is False:
        if not overwrite:
            raise UserError(
                f"{partial}: an unfinished conversion of other settings or data; --overwrite "
                "throws it away"
            )
        discard(partial)
    if not partial.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(plan, path.parent)
        start(plan, partial)
        if _continues(plan, partial) is False:
            raise UserError(f"{partial}: another conversion to the same place has just begun")


def _continues(plan: ConversionPlan, partial: Path) -> bool | None:
    """Whether the folder is an unfinished store of this plan; None if there is no folder.

    Raises `UserError` if it is something else.
    """
    try:
        return read_run(partial)["fingerprint"] == plan.fingerprint
    except (OSError, ValueError, KeyError) as error:
        if not partial.exists():
            return None
        raise UserError(
            f"{partial}: in the way, and not an unfinished store of LangSteer; move it ({error})"
        ) from error


def _check_room(plan: ConversionPlan, folder: Path) -> None:
    """Raise `UserError` if the disk cannot hold the store."""
    needed = 0.0
    for name in plan.settings.arrays:
        layout = schema(name, plan.pipeline)
        raw = plan.n_frames * layout.row_bytes
        needed += raw * _COMPRESSED.get(name, 1.0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, the store of {plan.n_frames} frames needs "
            f"about {needed / 1e9:.1f} GB; make room, or leave arrays out with --skip img depth"
        )


def _write_shards(
    plan: ConversionPlan, partial: Path, mine: list[int], num_workers: int | None, strict: bool
) -> int:
    """Write the missing ones of the shards; returns the number of their rows."""
    # The markers tell what a killed run has finished; the bar starts there.
    todo = [shard for shard in mine if not is_done(partial, shard)]
    rows = sum(len(plan.shard_rows(shard)) for shard in todo)
    done = sum(len(plan.shard_rows(shard)) for shard in mine) - rows
    workers = checked_workers(num_workers, len(todo))
    counter = CONTEXT.Value("q", 0)
    with progress_bar(done + rows, "converting", "frame", initial=done) as bar:
        advance = bar.update if workers == 1 else None
        make_worker = functools.partial(_ShardWriter, plan, partial, strict, counter, advance)
        # Processes count their frames in shared memory, and the bar follows.
        with doers(make_worker, workers, lambda: bar.update(done + counter.value - bar.n)) as do:
            finished = len(mine) - len(todo)
            with interruptible(
                lambda: (
                    f"{finished} of {len(mine)} shards are in {partial}; the same command goes on "
                    "with the others"
                )
            ):
                for _ in do(todo):
                    finished += 1
    return rows


class _ShardWriter:
    """Writes shards of a conversion by their numbers."""

    def __init__(
        self,
        plan: ConversionPlan,
        partial: Path,
        strict: bool,
        counter: "Synchronized[int]",
        advance: Callable[[int], object] | None,
    ) -> None:
        _keep_memory_together()
        self._plan, self._partial, self._strict = plan, partial, strict
        self._counter, self._advance = counter, advance or self._count

    def do(self, shard: int) -> None:
        """Write a shard; its marker says so."""
        write_shard(self._plan, self._partial, shard, self._advance, self._strict)

    def _count(self, frames: int) -> None:
        with self._counter.get_lock():
            self._counter.value += frames

    def close(self) -> None:
        """Nothing is held."""


def _keep_memory_together() -> None:
    """Ask the C library for one heap: a process then does not grow from shard to shard.

    By default glibc gives each thread a heap. The storage library encodes in one thread after
    another, and each one's heap would grow to the size of a shard.
    """
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
