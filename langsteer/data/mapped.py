"""Random access to the frames of a store without decoding: rows mapped to bytes of shard files.

The arrays for training are sharded but not compressed: one inner chunk of a shard file is one
frame's XYZ (or RGB, action, state) as float32. The index at a shard's end gives each chunk's place.
So reading a frame is one ``preadv`` from the page cache straight into the batch, and touches
nothing else of it. An array holds no handle of a storage library: forked and spawned data loader
workers may use it.

Example::

    xyz = MappedArray("data/calvin.zarr", "point_cloud")
    batch = xyz.gather(np.array([12, 4096, 7]))     # (3, P, 3) float32
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.data import checksums
from langsteer.data.layout import NO_CHUNK, read_index, read_layout
from langsteer.data.zarr_arrays import shard_file_name
from langsteer.errors import UserError
from langsteer.reading import open_regular

# A process may usually have 1024 files open; a large store has more shards than that.
_MAX_OPEN_FILES = 256
_SAMPLED_ROWS = 256
_UNCOMPRESSED = (("bytes", "crc32c"), ("bytes",))  # as written now, and by earlier versions


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
        layout = read_layout(self.folder)
        if not layout.sharded or layout.codecs not in _UNCOMPRESSED:
            raise UserError(
                f"{self.folder}: compressed or laid out in another way ({layout.codecs}); read it "
                "through langsteer.data.store instead"
            )
        shape, shard, chunk = layout.shape, layout.shard, layout.chunk
        self.has_checksums = layout.checksums
        if chunk[0] != 1 or chunk[1:-1] != shape[1:-1]:
            raise UserError(f"{self.folder}: inner chunks {chunk}, expected one frame each")
        if shard[1:] != shape[1:]:
            raise UserError(f"{self.folder}: shards {shard} do not hold whole frames of {shape}")
        self._parts = shape[-1] // chunk[-1]
        if not 0 <= part < self._parts:
            raise IndexError(f"part {part} of {self._parts}")
        self._part = part
        self.n_rows = shape[0]
        self.row_shape: tuple[int, ...] = chunk[1:]
        self.dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._rows_per_shard = shard[0]
        self._row_bytes = int(np.prod(self.row_shape)) * self.dtype.itemsize
        self._stored_bytes = self._row_bytes + checksums.BYTES * self.has_checksums
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
        """All frames (n_rows, *row_shape) in memory: one read for each shard file.

        Raises:
            UserError: a shard file is missing or damaged, or a checksum is wrong.
        """
        out = np.zeros((self.n_rows, *self.row_shape), dtype=self.dtype)
        flat = out.reshape(self.n_rows, -1)
        for shard in range(-(-self.n_rows // self._rows_per_shard)):
            descriptor = self._file(shard)
            first = shard * self._rows_per_shard
            offsets = self._offsets[shard][: self.n_rows - first]
            there = np.flatnonzero(offsets != NO_CHUNK)
            content = np.frombuffer(
                os.pread(descriptor, os.fstat(descriptor).st_size, 0), dtype=np.uint8
            )
            chunks = np.lib.stride_tricks.sliding_window_view(content, self._stored_bytes)
            rows = np.ascontiguousarray(chunks[offsets[there]])
            self._verify(rows, first + there)
            values = np.ascontiguousarray(rows[:, : self._row_bytes])
            flat[first + there] = values.view(self.dtype)
        return out

    def verify_sample(self) -> None:
        """Compare the checksums of some frames, spread evenly. `gather` compares none, `read` all.

        Raises:
            UserError: a shard file is missing or damaged, or a checksum is wrong.
        """
        if not self.has_checksums or not self.n_rows:
            return
        rows = np.unique(np.linspace(0, self.n_rows - 1, _SAMPLED_ROWS).astype(np.int64))
        stored = np.zeros((len(rows), self._stored_bytes), dtype=np.uint8)
        there = [
            self._read_row(*divmod(int(row), self._rows_per_shard), stored[place].data)
            for place, row in enumerate(rows)
        ]
        self._verify(stored[there], rows[there])

    def _verify(self, stored: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Raise `UserError` if the checksum stored behind a chunk (n, bytes) does not fit its
        bytes."""
        if not self.has_checksums:
            return
        expected = np.ascontiguousarray(stored[:, self._row_bytes :]).view("<u4")[:, 0]
        wrong = rows[checksums.crc32c(stored[:, : self._row_bytes]) != expected]
        if len(wrong):
            path = self._shard_path(int(wrong[0]) // self._rows_per_shard)
            raise UserError(
                f"{path}: the checksum of frame {wrong[0]} is wrong, so its bytes changed since "
                "they were written; convert the dataset again, or copy the store again"
            )

    def _read_row(self, shard: int, row: int, target: memoryview) -> bool:
        """Read one frame's chunk into ``target``; returns False for one that is not there: zeros.

        A target longer than a row takes the checksum, too.
        """
        descriptor = self._file(shard)
        offset = self._offsets[shard][row]
        if offset == NO_CHUNK:
            target[:] = bytes(len(target))
            return False
        if os.preadv(descriptor, [target], int(offset)) != len(target):
            raise UserError(f"{self._shard_path(shard)}: truncated; check the store")
        return True

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
            descriptor = open_regular(self._shard_path(shard))
        except FileNotFoundError as error:
            raise UserError(f"{self._shard_path(shard)}: missing; check the store") from error
        except OSError as error:
            raise UserError(f"{self._shard_path(shard)}: cannot be read ({error})") from error
        self._files[shard] = descriptor
        # The least recently used file closes; its index stays in memory.
        if len(self._files) > _MAX_OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        if shard not in self._offsets:
            self._offsets[shard] = self._read_index(shard, descriptor)
        return descriptor

    def _read_index(self, shard: int, descriptor: int) -> NDArray[np.uint64]:
        """Offset of each frame's chunk in a shard file, from the index at its end."""
        path, chunks = self._shard_path(shard), self._rows_per_shard * self._parts
        start, offsets, lengths = read_index(path, descriptor, chunks)
        there = np.sort(offsets[offsets != NO_CHUNK])
        same_length = (lengths[offsets != NO_CHUNK] == self._stored_bytes).all()
        # Chunks that overlap: an offset changed. Chunks fill the file, so that none changes unseen.
        apart = (np.diff(there) >= np.uint64(self._stored_bytes)).all()
        if not same_length or not apart or (there > max(0, start - self._stored_bytes)).any():
            raise UserError(f"{path}: its index is damaged; check the store")
        return np.ascontiguousarray(
            offsets.reshape(self._rows_per_shard, self._parts)[:, self._part]
        )

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
