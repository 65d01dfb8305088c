"""NumPy files from strangers: arrays out of ``.npy`` and ``.npz`` without running code.

CALVIN keeps its annotations in ``.npy`` files that hold pickled objects, and unpickling can run any
code. `load_npy` unpickles with a table of what may be made: NumPy arrays, NumPy scalars and plain
containers, under the module names of NumPy 1 and 2 alike.

`read_npz` reads named members of an ``.npz`` and only those. It is faster than `numpy.load` since
it reads the file once and parses each distinct header once.

Example::

    annotations = load_npy(folder / "lang_annotations" / "auto_lang_ann.npy").item()
    frame = read_npz(folder / "episode_0000000.npz", ["robot_obs", "rel_actions"])
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# numpy.core became numpy._core in NumPy 2; files written by either are read by both.
_ARRAY_MAKERS = {
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
}
_CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then lengths of name and of extra field
_MAX_HEADER_BYTES = 4096
_MAX_DEFLATE_RATIO = 1032  # zlib's documentation
# What zipfile, zlib and NumPy raise for damaged bytes.
_DAMAGE = (
    ValueError,
    NotImplementedError,
    OverflowError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
)


class UnreadableFileError(ValueError):
    """A file is damaged or holds what it must not; the message says what, not which file."""


def load_npy(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file; of an object array, only harmless objects.

    Raises:
        UnreadableFileError: no array, damaged, or an object that is no array and no plain
            container (it is not made, and no code of it runs).
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            shape, fortran, dtype = _read_header(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            array = _SafeUnpickler(file, encoding="latin1").load()
        except UnreadableFileError:
            raise
        except Exception as error:
            # A damaged pickle can raise anything that its opcodes stumble over.
            raise UnreadableFileError(f"damaged: {error!r}") from error
    if not isinstance(array, np.ndarray) or array.size != np.prod(shape, dtype=int):
        raise UnreadableFileError(f"no array of shape {shape} inside")
    return array.reshape(shape, order="F" if fortran else "C")


def read_npz(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of an ``.npz`` file, as read-only views of what was read.

    Raises:
        UnreadableFileError: the file is empty, truncated, no zip, or lacks an array.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, *_DAMAGE) as error:
        raise UnreadableFileError(f"{len(content)} bytes that are no npz: {error}") from error
    arrays = {}
    for name in names:
        info = members.get(f"{name}.npy")
        if info is None:
            raise UnreadableFileError(f"no array {name!r}, only {sorted(members)}")
        try:
            arrays[name] = _array_from_bytes(_inflate(content, info))
        except _DAMAGE as error:
            raise UnreadableFileError(f"array {name!r} is damaged: {error}") from error
    return arrays


class _SafeUnpickler(pickle.Unpickler):
    """An unpickler that makes NumPy arrays and plain containers, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as the base class
        """What a global in the pickle stands for; raises for all that is not listed."""
        if module == "__builtin__":  # Python 2's name, which protocols up to 2 write
            module = "builtins"
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        package, _, submodule = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and (submodule, name) in _ARRAY_MAKERS:
            return getattr(_array_module(submodule), name)
        if (module, name) == ("_codecs", "encode"):
            return _bytes_from_latin1
        raise UnreadableFileError(
            f"it asks for {module}.{name}, which is neither an array nor a plain container; the "
            "file is not CALVIN's, and nothing in it was run"
        )


def _array_module(submodule: str) -> Any:  # noqa: ANN401 - a module
    """``numpy._core.<submodule>``, or ``numpy.core.<submodule>`` before NumPy 2."""
    core = np._core if hasattr(np, "_core") else np.core
    return getattr(core, submodule)


def _bytes_from_latin1(text: str, encoding: str) -> bytes:
    """What old pickle protocols write for bytes: a call of encode with latin1, and only that."""
    if encoding != "latin1":
        raise UnreadableFileError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype from the start of a ``.npy``."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _inflate(content: bytes, info: zipfile.ZipInfo) -> bytes:
    """The uncompressed bytes of a member, checked against its checksum."""
    signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(content, info.header_offset)
    if signature != b"PK\x03\x04":
        raise ValueError("its place in the file is wrong")
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    data: bytes = content[start : start + info.compress_size]
    if info.file_size > _MAX_DEFLATE_RATIO * max(1, len(data)):
        raise ValueError(f"{len(data)} bytes cannot unpack to {info.file_size}")
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompress(data, wbits=-zlib.MAX_WBITS, bufsize=max(1, info.file_size))
    elif info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"compression method {info.compress_type}")
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise ValueError("its checksum is wrong")
    return data


def _array_from_bytes(data: bytes) -> NDArray[Any]:
    """The array of a ``.npy`` in memory, without a copy."""
    length_bytes = 2 if data[6:7] == b"\x01" else 4
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    if start > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {start} bytes")
    shape, fortran, dtype = _parse_header(data[:start])
    array = np.frombuffer(data, dtype, offset=start, count=int(np.prod(shape, dtype=int)))
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """`_read_header` of bytes; a dataset has the same few headers in all of its files."""
    shape, fortran, dtype = _read_header(io.BytesIO(header))
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype
