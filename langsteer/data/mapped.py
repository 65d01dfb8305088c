"""Random access to the frames of a store without decoding: rows mapped to bytes of shard files.

The arrays for training are sharded but not compressed: one inner chunk of a shard file is one
frame's XYZ (or RGB, action, state) as float32. The index at a shard's end gives each chunk's place.
So a frame is one ``preadv`` from the page cache straight into the batch, and nothing else of the
frame is touched. There is no handle of a storage library inside: forked and spawned data loader
workers may use an array.

Example::

    xyz = MappedArray("data/calvin.zarr", "point_cloud")
    batch = xyz.gather(np.array([12, 4096, 7]))     # (3, P, 3) float32
"""

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.data.store import shard_file_name
from langsteer.errors import UserError

# A process may usually have 1024 files open; a large store has more shards than that.
_MAX_OPEN_FILES = 256
_NO_CHUNK = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


class MappedArray:
    """Frames of one uncompressed, sharded array.

    Args:
        store_path: the store's folder.
        name: "point_cloud", "action" or "state".
        part: number of the inner chunk in a frame; for ``point_cloud`` 0 is XYZ and 1 is RGB.

    Raises:
        UserError: the array is missing, compressed, or laid out in another way.
    """

    def __init__(self, store_path: str | Path, name: str, part: int = 0) -> None:
        self.folder = Path(store_path) / "data" / name
        shape, shard, chunk, dtype = _layout(self.folder)
        if chunk[0] != 1 or any(c != s for c, s in zip(chunk[1:-1], shape[1:-1], strict=True)):
            raise UserError(f"{self.folder}: inner chunks {chunk}, expected one frame each")
        if shard[1:] != shape[1:]:
            raise UserError(f"{self.folder}: shards {shard} do not hold whole frames of {shape}")
        self._parts = shape[-1] // chunk[-1]
        if not 0 <= part < self._parts:
            raise IndexError(f"part {part} of {self._parts}")
        self._part = part
        self.n_rows = shape[0]
        self.row_shape: tuple[int, ...] = chunk[1:]
        self.dtype = dtype
        self._rows_per_shard = shard[0]
        self._row_bytes = int(np.prod(self.row_shape)) * dtype.itemsize
        self._files: OrderedDict[int, int] = OrderedDict()
        self._offsets: dict[int, NDArray[np.uint64]] = {}
        self._owner = os.getpid()

    def __len__(self) -> int:
        return self.n_rows

    def gather(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The given frames: rows (n,) integers to (n, *row_shape), in their order.

        Raises:
            IndexError: a row is not within 0 .. n_rows - 1.
            UserError: a shard file is missing or damaged.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n_rows):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {self.n_rows}")
        out = np.empty((len(rows), *self.row_shape), dtype=self.dtype)
        # Each frame is read straight into its place: no copy, no decoding.
        target = out.reshape(-1).view(np.uint8).data
        shards, inside = np.divmod(rows, self._rows_per_shard)
        for position, (shard, row) in enumerate(zip(shards.tolist(), inside.tolist(), strict=True)):
            start = position * self._row_bytes
            self._read_row(shard, row, target[start : start + self._row_bytes])
        return out

    def read(self) -> NDArray[Any]:
        """All frames (n_rows, *row_shape) in memory: one read for each shard file."""
        out = np.zeros((self.n_rows, *self.row_shape), dtype=self.dtype)
        flat = out.reshape(self.n_rows, -1)
        for shard in range(-(-self.n_rows // self._rows_per_shard)):
            descriptor = self._file(shard)
            first = shard * self._rows_per_shard
            offsets = self._offsets[shard][: self.n_rows - first]
            there = np.flatnonzero(offsets != _NO_CHUNK)
            content = np.frombuffer(
                os.pread(descriptor, os.fstat(descriptor).st_size, 0), dtype=np.uint8
            )
            chunks = np.lib.stride_tricks.sliding_window_view(content, self._row_bytes)
            rows = np.ascontiguousarray(chunks[offsets[there]])
            flat[first + there] = rows.view(self.dtype)
        return out

    def _read_row(self, shard: int, row: int, target: memoryview) -> None:
        """Read one frame's chunk into ``target``; a missing chunk is all zeros."""
        descriptor = self._file(shard)
        offset = self._offsets[shard][row]
        if offset == _NO_CHUNK:
            target[:] = bytes(self._row_bytes)
        elif os.preadv(descriptor, [target], int(offset)) != self._row_bytes:
            raise UserError(f"{self._shard_path(shard)}: truncated; check the store")

    def _file(self, shard: int) -> int:
        """Descriptor of a shard's file, opened at need; its index is read the first time."""
        if self._owner != os.getpid():
            # Inherited through a fork. Reading at an offset is safe on shared descriptors, but
            # closing and reopening them is simpler to reason about when each process has its own.
            self._files, self._owner = OrderedDict(), os.getpid()
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        try:
            descriptor = os.open(self._shard_path(shard), os.O_RDONLY)
        except FileNotFoundError as error:
            raise UserError(f"{self._shard_path(shard)}: missing; check the store") from error
        self._files[shard] = descriptor
        # The least recently used file closes; its index stays in memory.
        if len(self._files) > _MAX_OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        if shard not in self._offsets:
            self._offsets[shard] = self._read_index(shard, descriptor)
        return descriptor

    def _read_index(self, shard: int, descriptor: int) -> NDArray[np.uint64]:
        """Offset of each frame's chunk in a shard file, from the index at its end."""
        path, size = self._shard_path(shard), os.fstat(descriptor).st_size
        entries = self._rows_per_shard * self._parts
        start = size - entries * 16 - _CHECKSUM_BYTES
        if start < 0:
            raise UserError(f"{path}: {size} bytes, shorter than its index; check the store")
        index = np.frombuffer(os.pread(descriptor, entries * 16, start), dtype="<u8")
        offsets, lengths = index.reshape(self._rows_per_shard, self._parts, 2)[:, self._part].T
        there = offsets != _NO_CHUNK
        damaged = (lengths[there] != self._row_bytes) | (offsets[there] > start - self._row_bytes)
        if damaged.any():
            raise UserError(f"{path}: its index is damaged; check the store")
        return np.ascontiguousarray(offsets)

    def _shard_path(self, shard: int) -> Path:
        return self.folder / shard_file_name(shard, len(self.row_shape) + 1)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, so that an array travels to spawned workers."""
        return {**self.__dict__, "_files": OrderedDict()}

    def __del__(self) -> None:
        """Close this process's files."""
        if getattr(self, "_owner", None) == os.getpid():
            for descriptor in self._files.values():
                os.close(descriptor)


def _layout(
    folder: Path,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], np.dtype[Any]]:
    """Shape, shard shape, inner chunk shape and dtype of an array, from its ``zarr.json``."""
    path = folder / "zarr.json"
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
        (sharding,) = node["codecs"]
        inner = sharding["configuration"]
        codecs = [codec["name"] for codec in inner["codecs"]]
        index_codecs = [codec["name"] for codec in inner["index_codecs"]]
        shard = node["chunk_grid"]["configuration"]["chunk_shape"]
        dtype = np.dtype(node["data_type"]).newbyteorder("<")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a sharded Zarr v3 array ({error!r})") from error
    at_end = inner.get("index_location", "end") == "end"
    if codecs != ["bytes"] or index_codecs != ["bytes", "crc32c"] or not at_end:
        raise UserError(
            f"{folder}: compressed or laid out in another way ({codecs}); read it "
            "through langsteer.data.store instead"
        )
    return tuple(node["shape"]), tuple(shard), tuple(inner["chunk_shape"]), dtype
