"""How an array of a store lies in its files, from its ``zarr.json``.

Example::

    layout = read_layout(store.path / "data" / "state")
    layout.rows_per_shard, layout.checksums      # 1024, True
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.data.checksums import BYTES
from langsteer.errors import UserError
from langsteer.reading import open_regular, read_json
from langsteer.records import problem
from langsteer.settings import Bound

INDEX_BYTES = 16
"""Of a chunk's entry in the index at a shard's end: offset and length, uint64 each."""
NO_CHUNK = np.uint64(2**64 - 1)
"""The offset of a chunk that was never written."""

_Length = Annotated[int, Bound(lambda value: 0 <= value < 2**48, "a whole number from 0 on")]
_Lengths = Annotated[list[_Length], Bound(lambda value: 1 <= len(value) <= 8, "1 to 8 lengths")]


class _Chunk(TypedDict):
    chunk_shape: _Lengths


class _Grid(TypedDict):
    configuration: _Chunk


class _Named(TypedDict):
    name: str
    configuration: NotRequired[dict[str, Any]]


class _Sharding(TypedDict):
    chunk_shape: _Lengths
    codecs: list[_Named]
    index_codecs: list[_Named]


class _Array(TypedDict):
    shape: _Lengths
    data_type: str
    chunk_grid: _Grid
    codecs: list[_Named]


@dataclass(frozen=True)
class ArrayLayout:
    """Of an array: shapes of the whole, of a file, and of a chunk inside one.

    Attributes:
        shape, shard, chunk: lengths along the same axes; without shards the last two are equal.
        dtype: e.g. "float32".
        codecs: names of a chunk's.
        sharded: whether a file has many chunks, and an index at its end.
    """

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    codecs: tuple[str, ...]
    sharded: bool

    @property
    def rows_per_shard(self) -> int:
        """Frames of a file."""
        return self.shard[0]

    @property
    def n_shards(self) -> int:
        """Files."""
        return -(-self.shape[0] // self.rows_per_shard)

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a file's index."""
        return math.prod(n // m for n, m in zip(self.shard, self.chunk, strict=True))

    @property
    def checksums(self) -> bool:
        """Whether each chunk is followed by its checksum; versions before had none for clouds."""
        return self.codecs[-1] == "crc32c"


def read_layout(folder: Path) -> ArrayLayout:
    """The layout of an array; raises `UserError` if there is none, or none of ours."""
    path = folder / "zarr.json"
    try:
        node = read_json(path)
        wrong = problem(node, _Array)
        if wrong is None and node["codecs"] and node["codecs"][0]["name"] == "sharding_indexed":
            wrong = problem(node["codecs"][0].get("configuration"), _Sharding, "sharding_indexed")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a Zarr v3 array ({error!r:.200})") from error
    if wrong is not None:
        raise UserError(f"{path}: not a Zarr v3 array of ours: {wrong}")
    return _checked(_layout(node), node, path)


def _layout(node: dict[str, Any]) -> ArrayLayout:
    """The layout of an array's metadata, with its types checked."""
    shape, shard = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
    chunk, codecs = shard, node["codecs"]
    sharded = bool(codecs) and codecs[0]["name"] == "sharding_indexed"
    if sharded:
        chunk, codecs = (
            codecs[0]["configuration"]["chunk_shape"],
            codecs[0]["configuration"]["codecs"],
        )
    names = tuple(codec["name"] for codec in codecs)
    return ArrayLayout(tuple(shape), tuple(shard), tuple(chunk), node["data_type"], names, sharded)


def _checked(layout: ArrayLayout, node: dict[str, Any], path: Path) -> ArrayLayout:
    """The layout, if its parts fit each other; raises `UserError` otherwise."""
    shape, shard, chunk = layout.shape, layout.shard, layout.chunk
    fits = len(shape) == len(shard) == len(chunk) and all(
        m >= 1 and n % m == 0 for n, m in zip(shard, chunk, strict=True)
    )
    if not fits or 0 in shard:
        raise UserError(f"{path}: chunks {chunk} in shards {shard} of an array {shape}")
    if not layout.codecs or layout.dtype not in ("float32", "uint8", "int64"):
        raise UserError(f"{path}: {layout.dtype} by the codecs {layout.codecs}")
    if layout.sharded:
        inner = node["codecs"][0]["configuration"]
        index_codecs = [codec["name"] for codec in inner["index_codecs"]]
        at_end = inner.get("index_location", "end") == "end"
        if index_codecs != ["bytes", "crc32c"] or not at_end or len(node["codecs"]) != 1:
            raise UserError(f"{path}: its shards are laid out in another way than ours")
    return layout


def require_shards(folder: Path, layout: ArrayLayout, file_name: str) -> None:
    """Check a sharded array's files: present, regular, and with their index.

    Reading an array allocates as much memory as its metadata say. So its files must really be
    there, all of them.

    Args:
        folder: of the array.
        layout: its own.
        file_name: of a shard; a format of its number.

    Raises:
        UserError: a file is missing or is none, or is too short.
    """
    index = layout.chunks_per_shard * INDEX_BYTES + BYTES
    for shard in range(layout.n_shards):
        path = folder / file_name.format(shard)
        if not path.is_file():
            raise UserError(
                f"{path}: missing, or no file; the array has {layout.shape[0]} rows in "
                f"{layout.n_shards} files. Convert the dataset again, or copy the store again"
            )
        if path.stat().st_size < index:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes, shorter than its index; convert the "
                "dataset again, or copy the store again"
            )


def read_index(
    path: Path, descriptor: int, chunks: int
) -> tuple[int, NDArray[np.uint64], NDArray[np.uint64]]:
    """Where a shard's chunks lie, from the index at its file's end.

    Args:
        path: of the shard, for a message.
        descriptor: of its open file.
        chunks: their number in a shard.

    Returns:
        The byte at which the index begins. Offsets (chunks,), `NO_CHUNK` for a chunk that was never
        written. Lengths (chunks,) in bytes.

    Raises:
        UserError: the file is shorter than its index.
    """
    size = os.fstat(descriptor).st_size
    start = size - chunks * INDEX_BYTES - BYTES
    if start < 0:
        raise UserError(f"{path}: {size} bytes, shorter than its index; check the store")
    index = np.frombuffer(os.pread(descriptor, chunks * INDEX_BYTES, start), dtype="<u8")
    offsets, lengths = index.reshape(chunks, 2).T
    return start, offsets, lengths


def ownerless_bytes(path: Path, layout: ArrayLayout) -> int:
    """Number of bytes in a shard's file outside of its chunks and its index; 0 in a good file.

    No checksum covers them. Whoever reads the array does not see them.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        start, offsets, lengths = read_index(path, file.fileno(), layout.chunks_per_shard)
    return start - int(lengths[offsets != NO_CHUNK].sum())
