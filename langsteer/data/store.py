"""The Zarr of LangSteer: its schema, and how to open and read it.

A store is a Zarr v3 folder, readable by any Zarr v3 reader::

    calvin.zarr/
    ├── data/
    │   ├── point_cloud   (N, P, 6)       float32  XYZ metres in the world frame, RGB in [0, 1]
    │   ├── action        (N, 7)          float32  CALVIN's rel_actions
    │   ├── state         (N, 15)         float32  CALVIN's robot_obs
    │   ├── img           (N, 160, 160, 3) uint8   centre crop of the static camera (may be absent)
    │   └── depth         (N, 160, 160)   float32  metres, the same crop (may be absent)
    └── meta/
        └── episode_ends  (K,)            int64    one past the last frame of each episode

The attributes of the root hold the format's version and the observation pipeline, those of ``meta``
the table of episodes. Files are shards of many frames, since clusters count files. Inside a shard
each frame is a chunk of its own; XYZ and RGB of a cloud are two. The arrays for training are not
compressed, so `langsteer.data.mapped` can read a frame without decoding.

Example::

    store = open_store("data/calvin.zarr")
    states = store.read("state")                           # (N, 15) float32
    xyz = MappedArray(store.path, "point_cloud").gather(np.array([0, 7]))   # (2, P, 3) float32
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from langsteer.data.episodes import COLUMNS, EpisodeColumns, EpisodeTable
from langsteer.data.layout import read_layout, require_shards
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.zarr_arrays import (
    open_array,
    open_zarr_array,
    read_array,
    read_attributes,
    shard_file_name,
)
from langsteer.errors import UserError
from langsteer.records import problem

FORMAT = "langsteer-calvin"
VERSION = 1

SPLITS = ("training", "validation")
ARRAYS = ("point_cloud", "action", "state", "img", "depth")
REQUIRED_ARRAYS = ("point_cloud", "action", "state")
ACTION_DIM, STATE_DIM = 7, 15
FRAMES_PER_SHARD = 1024


@dataclass(frozen=True)
class ArraySchema:
    """The layout of one array of ``data/``.

    ``row`` is the shape of one frame's entry; ``chunk`` is the shape of an inner chunk, the frames'
    axis included. ``compressed`` arrays are for looking at, the others for training.
    """

    dtype: str
    row: tuple[int, ...]
    chunk: tuple[int, ...]
    compressed: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame's entry before compression."""
        return math.prod(self.row) * np.dtype(self.dtype).itemsize


class _LeftOut(TypedDict):
    split: str
    start: int
    end: int
    task: str
    reason: str


class _Conversion(TypedDict):
    """How a store came about, as far as it is read again."""

    fingerprint: str
    run: str
    settings: dict[str, Any]
    left_out: list[_LeftOut]


class _Root(TypedDict):
    """Attributes of a store's root, besides format and version."""

    pipeline: dict[str, Any]
    conversion: NotRequired[_Conversion]


class _Meta(TypedDict):
    """Attributes of ``meta``."""

    episodes: EpisodeColumns


@dataclass(frozen=True)
class Store:
    """A complete store, opened for reading; see `open_store`.

    Attributes:
        path: its folder.
        pipeline: of its point clouds.
        episode_ends: (K,) int64, increasing; the last is ``n_frames``.
        episodes: table of the K episodes.
        array_names: the arrays present in ``data/``.
        attributes: all attributes of the root.
    """

    path: Path
    pipeline: ObservationPipeline
    episode_ends: NDArray[np.int64]
    episodes: EpisodeTable
    array_names: tuple[str, ...]
    attributes: dict[str, Any] = field(repr=False)

    @property
    def n_frames(self) -> int:
        """Frames of all episodes (N)."""
        return int(self.episode_ends[-1]) if len(self.episode_ends) else 0

    @property
    def n_points(self) -> int:
        """Points of a cloud (P)."""
        return self.pipeline.n_points

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """(K,) int64, the first frame of each episode, in the store's own numbering."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])[: len(self.episodes)]

    def array(self, name: str) -> ts.TensorStore:
        """An array of ``data/``, read on demand: ``store.array("img")[5].read().result()``."""
        if name not in self.array_names:
            raise UserError(
                f"{self.path}: there is no {name}, only {', '.join(self.array_names)}; convert "
                "again without --skip"
            )
        return open_array(self.path, name)

    def read(self, name: str) -> NDArray[Any]:
        """A whole array of ``data/`` in memory."""
        return read_array(self.array(name), self.path / "data" / name)


def schema(name: str, pipeline: ObservationPipeline) -> ArraySchema:
    """The layout of an array for the pipeline's number of points and crop."""
    points, side = pipeline.n_points, pipeline.static_crop
    return {
        "point_cloud": ArraySchema("float32", (points, 6), (1, points, 3), compressed=False),
        "action": ArraySchema("float32", (ACTION_DIM,), (1, ACTION_DIM), compressed=False),
        "state": ArraySchema("float32", (STATE_DIM,), (1, STATE_DIM), compressed=False),
        "img": ArraySchema("uint8", (side, side, 3), (1, side, side, 3), compressed=True),
        "depth": ArraySchema("float32", (side, side), (1, side, side), compressed=True),
    }[name]


def open_store(path: str | Path) -> Store:
    """Open a complete store for reading.

    Raises:
        UserError: there is no store, it is unfinished, of another version, or inconsistent.
    """
    path = Path(path)
    if not path.is_dir():
        unfinished = partial_path(path)
        if unfinished.is_dir():
            raise UserError(
                f"{path}: its conversion is unfinished ({unfinished.name} lies there); run the "
                "same conversion again, it goes on where it stopped"
            )
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(
            f"{path}: no such store{where}; convert a dataset first (langsteer-convert)"
        )
    attributes = read_attributes(path)
    if attributes.get("format") != FORMAT:
        raise UserError(f"{path}: not a store of LangSteer (no format {FORMAT!r} in zarr.json)")
    if attributes.get("version") != VERSION:
        raise UserError(
            f"{path}: version {attributes.get('version')} of the format, this LangSteer reads "
            f"{VERSION}; convert the dataset again"
        )
    _require(attributes, _Root, path)
    columns = read_attributes(path / "meta")
    _require(columns, _Meta, path / "meta")
    # The pipeline travels with the data: training and rollout must make the same clouds.
    try:
        pipeline = ObservationPipeline.from_dict(attributes["pipeline"])
    except UserError as error:
        raise UserError(f"{path / 'zarr.json'}: {error}") from error
    store = Store(
        path=path,
        pipeline=pipeline,
        episode_ends=_read_ends(path, len(columns["episodes"]["split"])),
        episodes=EpisodeTable.from_dict(columns["episodes"]),
        array_names=tuple(name for name in ARRAYS if (path / "data" / name).is_dir()),
        attributes=attributes,
    )
    # Parts that contradict each other would only show as wrong samples, hours later.
    _validate(store)
    return store


def _require(attributes: Mapping[str, Any], kind: type, folder: Path) -> None:
    """Raise `UserError` unless the attributes of a group are what a store's are."""
    found = problem(attributes, kind)
    if found:
        raise UserError(
            f"{folder / 'zarr.json'}: damaged: {found}; convert the dataset again, or copy the "
            "store again"
        )


def _read_ends(path: Path, n_episodes: int) -> NDArray[np.int64]:
    """Read ``episode_ends``, and check it against the number of episodes in the table."""
    folder = path / "meta" / "episode_ends"
    layout = read_layout(folder)
    fits = layout.dtype == "int64" and layout.shape == (n_episodes,)
    if not fits or layout.chunk[0] > max(1, n_episodes):
        raise UserError(
            f"{folder}: {layout.dtype} {layout.shape} in chunks {layout.chunk}, but a table of "
            f"{n_episodes} episodes; convert the dataset again"
        )
    for file in folder.rglob("*"):
        if not file.is_dir() and not file.is_file():
            raise UserError(f"{file}: a pipe or a device, expected a file; remove it")
    return read_array(open_zarr_array(folder), folder)


def _validate(store: Store) -> None:
    """Raise `UserError` if the parts of a store contradict each other."""
    lengths = {len(getattr(store.episodes, name)) for name in COLUMNS}
    if len(lengths) > 1:
        raise UserError(f"{store.path / 'meta'}: columns of {sorted(lengths)} episodes")
    missing = set(REQUIRED_ARRAYS) - set(store.array_names)
    if missing:
        raise UserError(f"{store.path}: {', '.join(sorted(missing))} missing from data/")
    if (np.diff(store.episode_ends, prepend=0) <= 0).any():
        raise UserError(f"{store.path}: episode_ends do not increase")
    for name in store.array_names:
        folder, expected = store.path / "data" / name, schema(name, store.pipeline)
        layout, shape = read_layout(folder), (store.n_frames, *expected.row)
        if layout.shape != shape or layout.dtype != expected.dtype:
            raise UserError(
                f"{store.path}: {name} has shape {layout.shape} of {layout.dtype}, expected "
                f"{shape} of {expected.dtype}"
            )
        if layout.chunk != expected.chunk or layout.shard[1:] != expected.row:
            raise UserError(
                f"{store.path}: {name} has chunks {layout.chunk} in files of {layout.shard}, "
                f"expected {expected.chunk}"
            )
        require_shards(folder, layout, shard_file_name("{}", len(shape)))
        store.array(name)


def is_store(path: Path) -> bool:
    """Whether a folder is a store of ours, finished or not (of any version)."""
    try:
        return read_attributes(path).get("format") == FORMAT
    except UserError:
        return False


def partial_path(path: Path) -> Path:
    """The place of the unfinished store for ``path``."""
    return path.with_name(path.name + ".partial")
