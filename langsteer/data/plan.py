"""The plan of a conversion, made before the first frame is read.

The plan follows from the dataset's metadata and file names and from the settings alone. Every
process of a conversion makes the same plan for itself. Its fingerprint tells whether an unfinished
store belongs to it.

Example::

    plan = make_plan(Path("calvin_debug_dataset"), ConversionSettings(tasks=("open_drawer",)))
    plan.source_of(0)      # the origin of the store's first frame
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.dataset import (
    ANNOTATIONS,
    CONFIG,
    RANGES,
    Annotation,
    Split,
    list_frames,
    open_dataset,
    read_ranges,
)
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import FRAMES_PER_SHARD, VERSION
from langsteer.data.windows import wanted_windows, window_problem
from langsteer.errors import UserError
from langsteer.reading import read_bytes

# Small datasets get smaller shards: then several processes have work.
_MIN_FRAMES_PER_SHARD, _WANTED_SHARDS = 64, 16
_MOST_METADATA = 1 << 29  # as the readers of these files allow
_REPEATED = "repeats another annotation word for word"


class LeftOut(NamedTuple):
    """An episode left out of the store, with the reason; frames ``start`` to ``end`` exclusive."""

    split: str
    start: int
    end: int
    task: str
    reason: str

    def __str__(self) -> str:
        what = f" {self.task}" if self.task else ""
        return f"{self.split} [{self.start}, {self.end}){what}: {self.reason}"


class _PlacedWindow(NamedTuple):
    """A window and its place: the dataset's index among the roots, and the split."""

    place: int
    split: str
    window: Annotation


class FrameSource(NamedTuple):
    """The origin of a store's row: the episode's index, its split, the frame's number."""

    episode: int
    split: Split
    number: int


@dataclass(frozen=True)
class ConversionPlan:
    """All rows of a store in their order.

    Attributes:
        roots: the CALVIN folders, mixed in this order.
        settings: of the conversion.
        pipeline: of the point clouds.
        splits: the splits by the folder's place among the roots and name.
        table: the K episodes.
        episode_ends: (K,) int64.
        left_out: episodes the metadata alone show to be inconvertible.
        frames_per_shard: rows in a shard.
        source: fingerprint of the dataset's metadata.
    """

    roots: tuple[Path, ...]
    settings: ConversionSettings
    pipeline: ObservationPipeline
    splits: dict[tuple[int, str], Split]
    table: EpisodeTable
    episode_ends: NDArray[np.int64]
    left_out: tuple[LeftOut, ...]
    frames_per_shard: int
    source: str

    @property
    def n_frames(self) -> int:
        """Rows of the store, if all frames turn out to be good."""
        return int(self.episode_ends[-1])

    @property
    def n_shards(self) -> int:
        """Files of each array."""
        return -(-self.n_frames // self.frames_per_shard)

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """(K,) int64, first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest, shared by two plans if and only if they make the same store."""
        content = {
            "version": VERSION,
            "checksums": "crc32c",  # shards of earlier versions have none and do not mix with ours
            "pipeline": self.pipeline.to_dict(),
            "arrays": self.settings.arrays,
            "episodes": self.settings.episodes,
            "table": self.table.to_dict(),
            "episode_ends": self.episode_ends.tolist(),
            "frames_per_shard": self.frames_per_shard,
            "source": self.source,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.frames_per_shard
        return range(start, min(start + self.frames_per_shard, self.n_frames))

    def source_of(self, row: int) -> FrameSource:
        """The frame of a row of the store."""
        return next(self.sources(range(row, row + 1)))

    def sources(self, rows: range) -> Iterator[FrameSource]:
        """The frames of consecutive rows."""
        if not rows:
            return
        starts = self.episode_starts
        episode = int(np.searchsorted(self.episode_ends, rows.start, side="right"))
        for row in rows:
            if row == self.episode_ends[episode]:
                episode += 1
            number = int(self.table.first_frame[episode]) + row - int(starts[episode])
            yield FrameSource(episode, self._split_of(episode), number)

    def _split_of(self, episode: int) -> Split:
        return self.splits[int(self.table.source[episode]), str(self.table.split[episode])]

    def describe(self, episode: int, reason: str) -> LeftOut:
        """The entry for an episode found bad during the work."""
        start = int(self.table.first_frame[episode])
        length = int(self.episode_ends[episode] - self.episode_starts[episode])
        split, task = str(self.table.split[episode]), str(self.table.task[episode])
        return LeftOut(split, start, start + length, task, reason)


def make_plan(roots: Path | Sequence[Path], settings: ConversionSettings) -> ConversionPlan:
    """Plan the conversion of a CALVIN folder, or of several into one store.

    Episodes with missing frames are left out whole, never shortened.

    Raises:
        UserError: a folder is not CALVIN's, its metadata are broken, cameras differ, or nothing is
            left.
    """
    roots = (roots,) if isinstance(roots, Path) else tuple(roots)
    splits = {
        (place, split.name): split
        for place, root in enumerate(roots)
        for split in open_dataset(root, settings.splits)
    }
    pipeline = _common_pipeline(list(splits.values()), settings)
    windows, left_out = _choose_windows(splits, settings)
    _check_tasks(settings, [one.window.task for one in windows] + [o.task for o in left_out])
    # Cut after the checks, so max_episodes counts good episodes.
    windows = windows[: settings.max_episodes]
    if not windows:
        folders = ", ".join(map(str, roots))
        raise UserError(f"{folders}: no episode can be converted{_listing(left_out)}")
    lengths = [one.window.end - one.window.start for one in windows]
    ends = np.cumsum(lengths, dtype=np.int64)
    return ConversionPlan(
        roots=roots,
        settings=settings,
        pipeline=pipeline,
        splits=splits,
        table=_table(windows),
        episode_ends=ends,
        left_out=tuple(left_out),
        frames_per_shard=settings.frames_per_shard or _frames_per_shard(int(ends[-1])),
        source=_fingerprint(list(splits.values()), settings),
    )


def is_harmless(entry: LeftOut) -> bool:
    """Whether leaving an episode out loses nothing."""
    return entry.reason == _REPEATED


def _common_pipeline(splits: Sequence[Split], settings: ConversionSettings) -> ObservationPipeline:
    """The pipeline of the settings with the dataset's own cameras, equal in all splits."""
    config = splits[0].config
    for split in splits[1:]:
        if split.config != config:
            raise UserError(
                f"{split.folder / CONFIG} and {splits[0].folder / CONFIG} name different cameras "
                "or renderers; convert the splits to stores of their own (--splits)"
            )
    return ObservationPipeline(
        n_points=settings.n_points,
        box=settings.box,
        cameras=settings.cameras,
        static_crop=settings.static_crop,
        static=config.static,
        gripper=config.gripper,
        pixel_centre=config.pixel_centre,
    )


def _choose_windows(
    splits: Mapping[tuple[int, str], Split], settings: ConversionSettings
) -> tuple[list[_PlacedWindow], list[LeftOut]]:
    """The windows to convert, and those that the metadata show to be inconvertible."""
    windows: list[_PlacedWindow] = []
    left_out: list[LeftOut] = []
    # Whatever metadata and file names can tell is settled here, before hours of work.
    for (place, _), split in splits.items():
        wanted, repeated = wanted_windows(split, settings.episodes, settings.tasks)
        left_out += [_left_out(split, window, _REPEATED) for window in repeated]
        ranges, frames = read_ranges(split), list_frames(split)
        for window in wanted:
            problem = window_problem(window, ranges, frames)
            if problem:
                left_out.append(_left_out(split, window, problem))
            else:
                windows.append(_PlacedWindow(place, split.name, window))
    return windows, left_out


def _left_out(split: Split, window: Annotation, reason: str) -> LeftOut:
    return LeftOut(split.name, window.start, window.end, window.task, reason)


def _check_tasks(settings: ConversionSettings, found: Sequence[str]) -> None:
    """Raise `UserError` for a task without a window."""
    unknown = set(settings.tasks or ()) - set(found)
    if unknown:
        raise UserError(
            f"no episode of {', '.join(sorted(unknown))} in the dataset; see the names of tasks "
            "in its lang_annotations (e.g. open_drawer)"
        )


def _table(windows: Sequence[_PlacedWindow]) -> EpisodeTable:
    """The table of episodes; windows that overlap within a split share a group."""
    groups: list[int] = []
    covered = (-1, "", -1)  # dataset, split, and one past the last frame of the current group
    for place, split, window in windows:
        # Windows come by first frame: one beyond all earlier ends begins a new group.
        if (place, split) != covered[:2] or window.start >= covered[2]:
            groups.append(groups[-1] + 1 if groups else 0)
            covered = (place, split, window.end)
        else:
            groups.append(groups[-1])
            covered = (place, split, max(covered[2], window.end))
    return EpisodeTable.from_dict(
        {
            "split": [one.split for one in windows],
            "task": [one.window.task for one in windows],
            "instruction": [one.window.instruction for one in windows],
            "first_frame": [one.window.start for one in windows],
            "group": groups,
            "source": [one.place for one in windows],
        }
    )


def _frames_per_shard(n_frames: int) -> int:
    """Rows of a shard by the size of the store, so any machine chooses the same."""
    wanted = -(-n_frames // _WANTED_SHARDS)
    return max(_MIN_FRAMES_PER_SHARD, min(FRAMES_PER_SHARD, wanted))


def _fingerprint(splits: Sequence[Split], settings: ConversionSettings) -> str:
    """Hex digest of the plan's metadata files."""
    digest = hashlib.sha256()
    names = [CONFIG, RANGES] + ([] if settings.episodes == "play" else [ANNOTATIONS])
    for split in splits:
        for name in names:
            digest.update(read_bytes(split.folder / name, _MOST_METADATA))
    return digest.hexdigest()


def _listing(left_out: Sequence[LeftOut], limit: int = 20) -> str:
    """The entries as lines after a colon, or nothing."""
    if not left_out:
        return ""
    lines = [f"\n  {entry}" for entry in left_out[:limit]]
    if len(left_out) > limit:
        lines.append(f"\n  and {len(left_out) - limit} more")
    return ":" + "".join(lines)
