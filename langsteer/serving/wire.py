"""Messages of openpi's protocol: msgpack, with NumPy arrays as their bytes, dtype and shape.

We send numbers and booleans in arrays, and take text as well, which openpi's packer lets through.
Nothing received is unpickled, and no code runs.

Example::

    >>> unpack(pack({"actions": np.zeros((8, 7))}))["actions"].shape
    (8, 7)
"""

import math
import sys
from typing import Any

import numpy as np

from langsteer.errors import UserError

try:
    import msgpack
    import websockets  # noqa: F401 - checked here, once for all modules that need it
except ImportError as error:  # an extra: only servers and their clients need it
    raise UserError("msgpack and websockets are needed: pip install 'langsteer[serve]'") from error

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one message, either way: some images and clouds are below 1 MiB."""

_NUMBERS = "?biuf"
_TEXT = "US"


class BadMessageError(ValueError):
    """Bytes that are no message of the protocol, with the reason."""


def pack(message: dict[str, Any]) -> bytes:
    """The bytes of a message; raises TypeError for other values than the protocol's."""
    packed: bytes = msgpack.packb(message, default=_pack_numpy)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The message in ``data``; its arrays are read-only views.

    Raises:
        BadMessageError: no message, or an array of other values than numbers.
    """
    try:
        message = msgpack.unpackb(data, object_hook=_unpack_numpy)
    except BadMessageError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadMessageError(f"{len(data)} bytes that are no msgpack ({error})") from error
    if not isinstance(message, dict):
        raise BadMessageError(f"a mapping was expected, found {type(message).__name__}")
    return message


def _pack_numpy(value: Any) -> Any:  # noqa: ANN401 - msgpack's hook
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _NUMBERS:
        raise TypeError(f"an array of {value.dtype} cannot travel: only numbers and booleans do")
    if isinstance(value, np.ndarray):
        array = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {b"__ndarray__": True, **array}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} cannot travel")


def _unpack_numpy(value: dict[Any, Any]) -> Any:  # noqa: ANN401 - msgpack's hook
    if b"__ndarray__" in value:
        return _array(value.get(b"data"), value.get(b"dtype"), value.get(b"shape"))
    if b"__npgeneric__" in value:
        return _dtype(value.get(b"dtype")).type(value.get(b"data"))
    return value


def _array(data: object, dtype: object, shape: object) -> np.ndarray:
    kind = _dtype(dtype)
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadMessageError(f"an array of shape {shape!r}")
    if not isinstance(data, bytes) or len(data) != kind.itemsize * math.prod(shape):
        raise BadMessageError(f"an array of {dtype} {tuple(shape)} whose bytes do not fit it")
    # NumPy reads a number above Unicode's last as a character, and fails much later.
    if kind.kind == "U" and (np.frombuffer(data, f"{kind.byteorder}u4") > sys.maxunicode).any():
        raise BadMessageError("an array of text with characters that are none")
    return np.frombuffer(data, kind).reshape(shape)


def _dtype(name: object) -> np.dtype[Any]:
    try:
        kind = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError):
        kind = None
    if kind is None or kind.kind not in _NUMBERS + _TEXT or kind.itemsize == 0:
        raise BadMessageError(f"an array of {name!r}; only numbers, booleans and text travel")
    return kind
