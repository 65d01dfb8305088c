"""NumPy files from strangers: arrays out of ``.npy`` and ``.npz`` without running code.

CALVIN keeps its annotations in ``.npy`` files of pickled objects, and unpickling can run any code.
`load_npy` reads them with `langsteer.inert_pickle`. It makes NumPy arrays, NumPy scalars and plain
containers, under the module names of NumPy 1 and 2 alike. No byte of the file becomes a pointer: an
array of numbers or texts is made of bytes, one of objects of a list.

`read_npz` reads named members of an ``.npz`` and only those. It is faster than `numpy.load`: it
reads the file once and parses each distinct header once.

Example::

    annotations = load_npy(folder / "lang_annotations" / "auto_lang_ann.npy").item()
    frame = read_npz(folder / "episode_0000000.npz", ["robot_obs", "rel_actions"])
"""

import io
import math
import re
import reprlib
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langsteer.inert_pickle import InertUnpickler, Name, RefusedPickleError, Unbuilt
from langsteer.reading import Readable, read_bytes

PLAIN_KINDS = "biufcSU"
"""Kinds of dtype with plain values as bytes: no objects, no fields."""

_DTYPE_CODE = re.compile(r"[?biufcSUO]\d{0,9}")
_ADMITTED = {
    # numpy.core became numpy._core in NumPy 2; files written by either are read by both.
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytes"),
    ("_codecs", "encode"),
}
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a file in a zip: signature, then lengths of the name and of the extra field behind it."""

_MAX_HEADER_BYTES = 4096
_MOST_OBJECT_BYTES = 1 << 29  # the annotations of CALVIN's ABCD have 2^25
_MOST_FRAME_BYTES = 1 << 27  # of a frame's file, and of each array in it; CALVIN's have 2^19
_MAX_DEFLATE_RATIO = 1032  # zlib's documentation
DAMAGE = (
    ValueError,
    NotImplementedError,
    OverflowError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
)
"""What zipfile, zlib and NumPy raise for damaged bytes."""


class UnreadableFileError(ValueError):
    """A file is damaged or holds forbidden content; the message gives the reason, not the file."""


class Member(NamedTuple):
    """The place of a file in a zip; the fields are those of `zipfile.ZipInfo`."""

    header_offset: int
    compress_size: int
    file_size: int
    CRC: int
    compress_type: int

    @classmethod
    def of(cls, info: zipfile.ZipInfo) -> "Member":
        """The same of the standard library's."""
        return cls(*(getattr(info, field) for field in cls._fields))


def load_npy(path: Readable) -> NDArray[Any]:
    """The array in a ``.npy`` file; of an object array, only harmless objects.

    Raises:
        UnreadableFileError: no array, damaged, or an object other than an array or a plain
            container (it is not made, and no code of it runs).
        OSError: the file cannot be read.
    """
    content = read_bytes(path, _MOST_OBJECT_BYTES)
    try:
        file = io.BytesIO(content)
        shape, fortran, dtype = _read_header(file)
        if not dtype.hasobject:
            return _array_from_bytes(content)
        array = _ArrayUnpickler(content[file.tell() :]).load()
    except RefusedPickleError as error:
        raise UnreadableFileError(str(error)) from error
    except Exception as error:
        # NumPy's parser of headers can raise anything.
        raise UnreadableFileError(f"damaged: {error!r:.200}") from error
    if not isinstance(array, np.ndarray) or array.size != math.prod(shape):
        raise UnreadableFileError(f"no array of shape {shape} inside")
    return array.reshape(shape, order="F" if fortran else "C")


def read_npz(
    path: Readable, names: Iterable[str], most_bytes: int = _MOST_FRAME_BYTES
) -> dict[str, NDArray[Any]]:
    """The named arrays of an ``.npz`` file, as read-only views of the file's bytes.

    Args:
        path: of the file.
        names: of the arrays.
        most_bytes: of the file, and of each array in it.

    Raises:
        UnreadableFileError: the file is empty, truncated, no zip, or lacks an array.
        OSError: the file cannot be read.
    """
    content = read_bytes(path, most_bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise UnreadableFileError(f"{len(content)} bytes that are no npz: {error}") from error
    arrays = {}
    for name in names:
        info = members.get(f"{name}.npy")
        if info is None:
            raise UnreadableFileError(f"no array {name!r}, only {sorted(members)}")
        try:
            arrays[name] = _array_from_bytes(inflate(content, Member.of(info), most_bytes))
        except DAMAGE as error:
            raise UnreadableFileError(f"array {name!r} is damaged: {error}") from error
    return arrays


class _ArrayUnpickler(InertUnpickler):
    """Makes NumPy arrays, NumPy scalars and plain containers, and refuses all else."""

    key_types = (*InertUnpickler.key_types, np.generic)

    def find(self, name: Name) -> object:
        """An admitted name, under one spelling."""
        # Python 2's name, written by protocols up to 2, and NumPy 1's.
        module = {"__builtin__": "builtins"}.get(name.module, name.module)
        module = module.replace("numpy.core.", "numpy._core.", 1)
        if (module, name.name) not in _ADMITTED:
            raise RefusedPickleError(
                f"it asks for {name}, which is neither an array nor a plain container; the file is "
                "not CALVIN's, and nothing in it was run"
            )
        return Name(module, name.name)

    def call(self, function: object, args: tuple[Any, ...]) -> object:
        """An array, a scalar, a dtype, a container, or bytes in an old protocol."""
        match str(function), args:
            case "numpy._core.multiarray._reconstruct", _:
                return _UnbuiltArray()
            case "numpy.dtype", (str(code), *_):
                return _UnbuiltDtype(code)
            case "numpy._core.multiarray.scalar", (np.dtype() as dtype, data):
                return self._array(dtype, (), data, fortran=False)[()]
            case "numpy._core.numeric._frombuffer", (data, np.dtype() as dtype, shape, order):
                return self._array(dtype, shape, data, fortran=order == "F")
            case "collections.OrderedDict", (*pairs,) if len(pairs) <= 1:
                made: OrderedDict[Any, Any] = OrderedDict()
                self.fill_dict(made, [(key, value) for key, value in self._items(pairs)])
                return made
            case "builtins.set", (*items,) if len(items) <= 1:
                return {self.check_key(item) for item in self._items(items)}
            case "builtins.frozenset", (*items,) if len(items) <= 1:
                return frozenset(self.check_key(item) for item in self._items(items))
            case "_codecs.encode", (str(text), "latin1"):
                self.spend(len(text))
                return text.encode("latin1")
            case "builtins.bytes", ():
                return b""
        raise RefusedPickleError(f"it calls {function} with other arguments than NumPy does")

    def build(self, target: object, state: object) -> object:
        """An array or a dtype from its state, as NumPy pickles it."""
        match target, state:
            case _UnbuiltDtype(), (int(), str(order), None, None, None, *_):
                return _plain_dtype(target.code, order)
            case _UnbuiltArray(), (int(), shape, np.dtype() as dtype, bool(fortran), data):
                return self._array(dtype, shape, data, fortran)
        return super().build(target, state)

    def _items(self, args: list[Any]) -> list[Any]:
        """The elements of a container, for a call that copies it."""
        items = args[0] if args else []
        if not isinstance(items, list):
            raise RefusedPickleError(f"a container made of a {type(items).__name__}")
        self.spend(len(items))
        return items

    def _array(
        self, dtype: np.dtype[Any], shape: object, data: object, fortran: bool
    ) -> NDArray[Any]:
        """An array of its bytes, or of a list of objects."""
        if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
            raise RefusedPickleError(f"an array of shape {reprlib.repr(shape)}")
        if dtype.hasobject:
            flat = _object_array(data)
        else:
            if isinstance(data, str):  # bytes that Python 2 pickled
                data = data.encode("latin1")
            flat = plain_array(data, dtype)
        if flat.size != math.prod(shape):
            raise RefusedPickleError(f"{flat.size} elements for an array of shape {shape}")
        self.spend(flat.nbytes if not dtype.hasobject else flat.size)
        return flat.reshape(shape, order="F" if fortran else "C").copy()


class _UnbuiltArray(Unbuilt):
    """A call of ``_reconstruct``; the array's content is its state."""


class _UnbuiltDtype(Unbuilt):
    """A dtype; its state is its byte order."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code


def _plain_dtype(code: str, order: Any) -> np.dtype[Any]:  # noqa: ANN401
    """A dtype of numbers, texts or objects; none with fields, shapes or metadata."""
    if not _DTYPE_CODE.fullmatch(code) or order not in ("<", ">", "|", "="):
        raise RefusedPickleError(f"an array of dtype {code!r:.40}")
    return np.dtype(code).newbyteorder(order)


def _object_array(items: object) -> NDArray[Any]:
    """Objects in an array; the unpickler made each of them, and none is half made."""
    if not isinstance(items, list):
        raise RefusedPickleError(f"an array of objects from {type(items).__name__}")
    if any(isinstance(item, Name | Unbuilt) for item in items):
        raise RefusedPickleError("an array of something that is no value")
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def plain_array(data: object, dtype: np.dtype[Any], offset: int = 0) -> NDArray[Any]:
    """All bytes from an offset on as a flat array of numbers or texts, without a copy.

    Raises:
        ValueError: another kind of dtype, bytes of no whole number of elements, or texts with
            codes of no character.
    """
    if dtype.kind not in PLAIN_KINDS or dtype.names or dtype.subdtype:
        raise ValueError(f"an array of dtype {dtype!s:.40}")
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"an array of {type(data).__name__}")
    if dtype.itemsize == 0:
        return np.zeros(1, dtype)
    array: NDArray[Any] = np.frombuffer(data, dtype, offset=offset)
    if dtype.kind == "U" and array.size:
        codes = np.frombuffer(
            data, np.dtype(np.uint32).newbyteorder(dtype.byteorder), offset=offset
        )
        if codes.max() > sys.maxunicode:
            raise ValueError("a text with codes that are no characters")
    return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype from the start of a ``.npy``."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def inflate(content: bytes, info: Member, most_bytes: int = _MOST_FRAME_BYTES) -> bytes:
    """The uncompressed bytes of a file in a zip, checked against its checksum.

    Args:
        content: of the zip, from the offset 0 of ``info`` on.
        info: the file's place.
        most_bytes: of the file.

    Raises:
        ValueError, struct.error, zlib.error: it is damaged, or packed in an unusual way.
    """
    signature, name_length, extra_length = LOCAL_HEADER.unpack_from(content, info.header_offset)
    if signature != b"PK\x03\x04":
        raise ValueError("its place in the file is wrong")
    start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    data: bytes = content[start : start + info.compress_size]
    most = min(_MAX_DEFLATE_RATIO * max(1, len(data)), most_bytes)
    if info.file_size > most:
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
    array = plain_array(data, dtype, offset=start)
    if array.size != math.prod(shape) or any(length < 0 for length in shape):
        raise ValueError(f"{array.size} elements for an array of shape {shape}")
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """`_read_header` of bytes; a dataset has the same few headers in all of its files."""
    try:
        shape, fortran, dtype = _read_header(io.BytesIO(header))
    except Exception as error:  # NumPy's parser can raise anything that it stumbles over
        raise ValueError(f"its header: {error!r:.200}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype
