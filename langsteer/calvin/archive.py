"""A CALVIN dataset inside its zip, read without unpacking.

CALVIN comes as zips of 166 to 517 GB, and unpacked it needs as much again. A zip lists its files at
its end, each with its place, so any of them is one read away. The list of 600,000 files takes some
tens of megabytes here; nothing else is kept.

`ArchivePath` has what `langsteer.calvin.dataset` needs of a `pathlib.Path`.

Example::

    root = open_archive(Path("task_D_D.zip")) / "task_D_D"
    content = (root / "training" / "ep_start_end_ids.npy").read_bytes()
"""

import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.npy import DAMAGE, LOCAL_HEADER, Member, UnreadableFileError, inflate
from langsteer.errors import UserError

# The records of a zip and their names are of PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 2**16 - 1
_IN_EXTRA_FIELD = 2**32 - 1
_ZIP64_FIELD = 1
_ENCRYPTED, _UTF8 = 1, 1 << 11
_BLOCK = 1 << 20  # bytes of the list that are parsed at a time
_PLACE = np.dtype(
    [
        ("header_offset", "<u8"),
        ("compress_size", "<u8"),
        ("file_size", "<u8"),
        ("CRC", "<u4"),
        ("compress_type", "<u2"),
    ]
)


class _Listing(NamedTuple):
    """The files of one folder: names (M,) bytes, sorted and distinct, places (M,) `_PLACE`."""

    names: NDArray[np.bytes_]
    places: NDArray[np.void]


@dataclass(frozen=True, eq=False)
class Archive:
    """A zip and the list of its files; it holds no open file, so it travels to other processes.

    Attributes:
        path: of the zip.
        folders: what each folder with files in it holds.
    """

    path: Path
    folders: dict[str, _Listing]

    def find(self, name: PurePosixPath) -> Member | None:
        """The place of a file, or None."""
        listing = self.folders.get(str(name.parent))
        wanted = name.name.encode()
        if listing is None or len(wanted) > listing.names.itemsize:
            return None
        row = int(np.searchsorted(listing.names, np.bytes_(wanted)))
        if row == len(listing.names) or listing.names[row] != wanted:
            return None
        return Member(*listing.places[row].tolist())

    def read(self, name: PurePosixPath) -> bytes:
        """The content of a file, checked against its checksum.

        Raises:
            FileNotFoundError: there is none of this name.
            UnreadableFileError: it is damaged.
            OSError: the zip cannot be read.
        """
        member = self.find(name)
        if member is None:
            raise FileNotFoundError(f"{self.path}: no {name} in it")
        try:
            with self.path.open("rb", buffering=0) as file:
                header = os.pread(file.fileno(), LOCAL_HEADER.size, member.header_offset)
                _, name_length, extra_length = LOCAL_HEADER.unpack(header)
                size = len(header) + name_length + extra_length + member.compress_size
                if size > os.fstat(file.fileno()).st_size:  # or as much memory would be asked for
                    raise ValueError(f"{size} bytes, more than the zip has")
                content = os.pread(file.fileno(), size, member.header_offset)
            return inflate(content, member._replace(header_offset=0))
        except DAMAGE as error:
            raise UnreadableFileError(f"damaged in the zip: {error}") from error


@dataclass(frozen=True, eq=False)
class ArchivePath:
    """A file or folder in a zip, as much of `pathlib.Path` as reading a dataset needs."""

    archive: Archive
    inner: PurePosixPath

    def __truediv__(self, name: str | PurePath) -> "ArchivePath":
        return ArchivePath(self.archive, self.inner / name)

    def __str__(self) -> str:
        return str(self.archive.path / self.inner)

    @property
    def name(self) -> str:
        """The last part; for the root, the zip's own."""
        return self.inner.name or self.archive.path.name

    @property
    def parent(self) -> "ArchivePath":
        """The folder around it; the root is its own."""
        return ArchivePath(self.archive, self.inner.parent)

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return self.archive.find(self.inner) is not None

    def is_dir(self) -> bool:
        """Whether there are files below."""
        return any(self.inner in (folder, *folder.parents) for folder in self._folders())

    def read_bytes(self) -> bytes:
        """See `Archive.read`."""
        return self.archive.read(self.inner)

    def read_text(self, encoding: str = "utf-8") -> str:
        """See `Archive.read`."""
        return self.read_bytes().decode(encoding)

    def names(self) -> Iterator[str]:
        """Names of the files of this folder."""
        listing = self.archive.folders.get(str(self.inner))
        return iter(()) if listing is None else (one.decode() for one in listing.names)

    def below(self) -> list["ArchivePath"]:
        """All folders of the zip with files, and their parents."""
        folders = {one for folder in self._folders() for one in (folder, *folder.parents)}
        return [ArchivePath(self.archive, folder) for folder in sorted(folders)]

    def _folders(self) -> Iterator[PurePosixPath]:
        return map(PurePosixPath, self.archive.folders)


def open_archive(path: Path) -> ArchivePath:
    """The root of a zip.

    Raises:
        UserError: no zip, or an incomplete or unreadable one.
    """
    try:
        with path.open("rb") as file:
            return ArchivePath(Archive(path, _read_list(file)), PurePosixPath())
    except (OSError, *DAMAGE) as error:
        raise UserError(
            f"{path}: cannot be read as a zip ({error}). A zip has its list of files at its end: "
            "where the download stopped before, go on with it (`wget -c`), or get the file again"
        ) from error


def _read_list(file: BinaryIO) -> dict[str, _Listing]:
    """The content of each folder of a zip; raises one of `DAMAGE` if the list makes no sense."""
    chunks: dict[str, list[_Listing]] = defaultdict(list)
    for entries in _blocks(file, *_find_list(file)):
        by_folder: dict[str, list[_Entry]] = defaultdict(list)
        for entry in entries:
            by_folder[entry.name.rpartition("/")[0]].append(entry)
        for folder, ones in by_folder.items():
            chunks[str(PurePosixPath(folder))].append(_listing(ones))
    return {folder: _merge(listings) for folder, listings in chunks.items()}


def _blocks(file: BinaryIO, start: int, size: int) -> Iterator[list["_Entry"]]:
    """The files of a zip, some thousands at a time: the largest dataset's list has 300 MB."""
    file.seek(start)
    rest = b""
    for block in iter(lambda: file.read(min(_BLOCK, start + size - file.tell())), b""):
        entries, used = _entries(rest + block)
        rest = (rest + block)[used:]
        yield entries
    if rest:
        raise ValueError("its list of files is cut off")


def _listing(entries: list["_Entry"]) -> _Listing:
    """Entries of one folder as arrays, in their order."""
    names = [entry.name.rpartition("/")[2].encode() for entry in entries]
    return _Listing(np.array(names), np.array([entry.place for entry in entries], _PLACE))


def _merge(chunks: list[_Listing]) -> _Listing:
    """One sorted listing; of a repeated name the last counts, as in `zipfile`."""
    names = np.concatenate([chunk.names for chunk in chunks])[::-1]
    names, rows = np.unique(names, return_index=True)
    places = np.concatenate([chunk.places for chunk in chunks])[::-1]
    return _Listing(names, places[rows])


def _find_list(file: BinaryIO) -> tuple[int, int]:
    """The begin of the list of files, and its bytes."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END.size - _LONGEST_COMMENT)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise ValueError(f"no end of a zip in {size} bytes")
    length, offset = _END.unpack_from(tail, at)[5:7]
    locator = start + at - _END_64_LOCATOR.size
    if locator >= 0:
        file.seek(locator)
        signature, _, place, _ = _END_64_LOCATOR.unpack(file.read(_END_64_LOCATOR.size))
        if signature == b"PK\x06\x07":
            file.seek(place)
            length, offset = _END_64.unpack(file.read(_END_64.size))[-2:]
    if offset + length > size:
        raise ValueError(f"its list of files would end at {offset + length} of {size} bytes")
    return offset, length


class _Entry(NamedTuple):
    """A file or folder in the list of a zip: its name, and its `Member`."""

    name: str
    place: Member


def _entries(content: bytes) -> tuple[list[_Entry], int]:
    """The whole entries of a part of the list, and how many bytes they take."""
    entries: list[_Entry] = []
    at = 0
    while at + _ENTRY.size <= len(content):
        fields = _ENTRY.unpack_from(content, at)
        if fields[0] != b"PK\x01\x02":
            raise ValueError("its list of files is damaged")
        flags, method, crc, packed, size = (fields[place] for place in (3, 4, 7, 8, 9))
        name_length, extra_length, comment_length = fields[10:13]
        name_end = at + _ENTRY.size + name_length
        end = name_end + extra_length + comment_length
        if end > len(content):
            break
        name = content[at + _ENTRY.size : name_end].decode("utf-8" if flags & _UTF8 else "cp437")
        if flags & _ENCRYPTED:
            raise ValueError(f"{name} in it is encrypted")
        extra = content[name_end : name_end + extra_length]
        size, packed, offset = _wide(extra, [size, packed, fields[16]])
        entries.append(_Entry(name, Member(offset, packed, size, crc, method)))
        at = end
    return entries, at


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """File size, packed size and offset; 64-bit ones come from the extra field."""
    if _IN_EXTRA_FIELD not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_FIELD:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            return [next(wide, value) if value == _IN_EXTRA_FIELD else value for value in values]
        at += 4 + length
    raise ValueError("a file of 4 GB without its 64-bit field")
