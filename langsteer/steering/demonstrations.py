"""Demonstrated paths by task, for guidance by reference.

A library is a small file: it keeps poses, names of tasks and places of blocks, and no images.

Example::

    library = open_library(Path("data/demos"))     # a CALVIN folder, or a saved library (.npz)
    library.save(Path("data/references.npz"))
    for demonstration in library.of("open_drawer"):
        demonstration.poses                        # (T + 1, 7)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.angles import wrapped
from langsteer.calvin.dataset import (
    METRES_PER_UNIT,
    RADIANS_PER_UNIT,
    Annotation,
    Split,
    frame_name,
    open_dataset,
    read_annotations,
    read_frame,
    read_ranges,
)
from langsteer.calvin.npy import UnreadableFileError, read_npz
from langsteer.calvin.scenes import BLOCK_NAMES, scene_of
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.progress import track
from langsteer.steering.blocks import YAW, KnownScene, block_place, yaw_turn
from langsteer.steering.path import METRIC, POSE_DIM

MAX_LEAD = 128
"""A demonstration has at most this many frames before its annotated window."""

_UNITS = np.array([*[METRES_PER_UNIT] * 3, *[RADIANS_PER_UNIT] * 3])
_NO_BLOCK = np.full(4, np.nan)
_FORMAT = "langsteer-demonstrations-2"
_MOST_BYTES = 1 << 30  # CALVIN's ABCD, with 24 000 annotations, takes a quarter


@dataclass(frozen=True)
class Demonstration:
    """One way in which a task was done.

    Attributes:
        task: its name.
        poses: (T + 1, 7) float64: the first pose, then the commanded pose after each of T actions
            (`langsteer.steering.path`). The first gripper command repeats the second.
        block: (4,) float64 xyz and yaw of the task's block at the beginning
            (`blocks.block_place`), or None.
    """

    task: str
    poses: NDArray[np.float64]
    block: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.poses) - 1

    @classmethod
    def from_actions(
        cls,
        task: str,
        start: NDArray[np.floating],
        actions: NDArray[np.floating],
        block: NDArray[np.float64] | None = None,
    ) -> "Demonstration":
        """Sum up actions (T, 7) from the pose ``start`` (6,)."""
        poses = np.empty((len(actions) + 1, POSE_DIM))
        poses[0, :6] = start
        poses[1:, :6] = start + np.cumsum(actions[:, :6] * _UNITS, axis=0)
        poses[1:, 6] = actions[:, 6]
        poses[0, 6] = poses[1, 6]
        return cls(task, poses, block)

    def for_block_at(self, place: NDArray[np.float64] | None) -> "Demonstration":
        """The same way shifted to a block at ``place`` (4,), the hand turned with the block.

        None shifts nothing. The path itself does not turn: a push to the left stays one.
        """
        if place is None or self.block is None:
            return self
        poses = self.poses.copy()
        poses[:, :3] += place[:3] - self.block[:3]
        poses[:, 5] += yaw_turn(self.block[YAW], place[YAW])
        return Demonstration(self.task, poses, place)

    def ahead(self, phase: int, steps: int) -> NDArray[np.float64]:
        """(steps, 7) the poses after action ``phase``, ``phase + 1``, ...; the last one repeats."""
        return self.poses[np.minimum(phase + 1 + np.arange(steps), len(self))]

    def distances(self, pose: NDArray[np.floating], first: int, last: int) -> NDArray[np.float64]:
        """Metres from ``pose`` (6,) to the poses ``first`` to ``last`` - 1, turns included."""
        difference = self.poses[first:last, :6] - pose
        difference[:, 3:] = wrapped(difference[:, 3:])
        return np.linalg.norm(difference * METRIC[:6], axis=1)


class DemonstrationLibrary:
    """Demonstrations by task."""

    def __init__(self, demonstrations: Sequence[Demonstration], source: str) -> None:
        self._all = list(demonstrations)
        self.source = source

    def __len__(self) -> int:
        return len(self._all)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks shown, sorted."""
        return tuple(sorted({demonstration.task for demonstration in self._all}))

    def of(self, task: str) -> list[Demonstration]:
        """The demonstrations of a task.

        Raises:
            UserError: there is none.
        """
        found = [one for one in self._all if one.task == task]
        if not found:
            raise UserError(
                f"{self.source}: no demonstration of {task}; it has {', '.join(self.tasks)}"
            )
        return found

    def save(self, path: Path) -> None:
        """Write a file of plain arrays."""
        ends = np.cumsum([len(one.poses) for one in self._all])
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                format=np.array(_FORMAT),
                tasks=np.array([one.task for one in self._all]),
                ends=ends,
                poses=np.concatenate([one.poses for one in self._all]),
                blocks=np.array(
                    [_NO_BLOCK if one.block is None else one.block for one in self._all]
                ),
            )


def open_library(path: Path) -> DemonstrationLibrary:
    """The demonstrations of a saved library, or of a CALVIN folder's training split.

    Raises:
        UserError: there is neither, or it is damaged or empty.
    """
    if path.is_dir():
        (split,) = open_dataset(path, ["training"])
        return DemonstrationLibrary(list(_read_split(split)), str(path))
    if not path.is_file():
        raise UserError(
            f"{path}: no demonstrations there; name a CALVIN folder (scripts/collect_demos.py "
            "makes one) or a library saved from one"
        )
    return _load(path)


def _load(path: Path) -> DemonstrationLibrary:
    names = ("format", "tasks", "ends", "poses", "blocks")
    try:
        found, tasks, ends, poses, blocks = read_npz(path, names, _MOST_BYTES).values()
        if str(found) != _FORMAT:
            raise ValueError(f"format {found!s:.100}")
        _check_library(tasks, ends, poses, blocks)
    except (UnreadableFileError, ValueError) as error:
        raise UserError(f"{path}: not a library of demonstrations ({error})") from error
    parts = np.split(poses, ends[:-1])
    kept = zip(tasks, parts, blocks, strict=True)
    return DemonstrationLibrary(
        [
            Demonstration(str(task), poses, None if np.isnan(block).any() else block)
            for task, poses, block in kept
        ],
        str(path),
    )


def _check_library(
    tasks: NDArray[Any], ends: NDArray[Any], poses: NDArray[Any], blocks: NDArray[Any]
) -> None:
    """Raise ValueError for arrays that `DemonstrationLibrary.save` does not write."""
    layout = [(array.shape, array.dtype.kind) for array in (tasks, ends, poses, blocks)]
    count = tasks.size
    if layout != [
        ((count,), "U"),
        ((count,), "i"),
        ((len(poses), POSE_DIM), "f"),
        ((count, 4), "f"),
    ]:
        raise ValueError(f"tasks, ends, poses, blocks are {layout}")
    # A path has its first pose and at least one more; nothing is left over.
    if not count or (np.diff(ends, prepend=0) < 2).any() or ends[-1] != len(poses):
        raise ValueError("its ends do not part its poses")
    if not np.isfinite(poses).all():
        raise ValueError("a pose is not finite")


def _read_split(split: Split) -> Iterator[Demonstration]:
    """One demonstration for each annotation, with some frames before and after its window.

    No frames of the recording's earlier or later tasks are among them.
    """
    annotations = sorted(read_annotations(split))
    if not annotations:
        raise UserError(f"{split.folder}: no annotated windows, hence no demonstrations")
    ranges = read_ranges(split)
    for annotation in track(annotations, "reading demonstrations", unit="demonstration"):
        first, last = _extent(annotation, annotations, ranges)
        frames = [
            read_frame(
                split.folder / frame_name(number),
                ["robot_obs", "scene_obs", "rel_actions"],
                split.config,
            )
            for number in range(first, last)
        ]
        # A path is summed up from the actions, so guidance compares commanded poses with commanded
        # ones.
        actions = np.stack([frame["rel_actions"] for frame in frames])
        names = BLOCK_NAMES[scene_of(split, annotation.start)]
        block = block_place(annotation.task, KnownScene(frames[0]["scene_obs"], names))
        start = frames[0]["robot_obs"][:6]
        yield Demonstration.from_actions(annotation.task, start, actions, block)


def _extent(
    annotation: Annotation, annotations: Sequence[Annotation], ranges: NDArray[np.int64]
) -> tuple[int, int]:
    """First frame and one past the last of the demonstration around an annotated window."""
    inside = (ranges[:, 0] <= annotation.start) & (annotation.start <= ranges[:, 1])
    begin, end = ranges[inside][0] if inside.any() else (annotation.start, annotation.end - 1)
    # Windows overlap if one task follows another at once.
    before = [min(one.end, annotation.start) for one in annotations if one.start < annotation.start]
    after = [max(one.start, annotation.end) for one in annotations if one.start > annotation.start]
    first = max(begin, annotation.start - MAX_LEAD, *before[-1:] or [begin])
    return int(first), int(min(end + 1, *after[:1] or [end + 1]))
