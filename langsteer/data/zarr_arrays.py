"""Arrays and groups of a Zarr v3 folder, opened by tensorstore.

Example::

    states = open_array(Path("data/calvin.zarr"), "state")
    states[5].read().result()                          # (15,) float32
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from langsteer.errors import UserError
from langsteer.reading import read_json


def open_array(folder: Path, name: str, write: bool = False) -> ts.TensorStore:
    """An array of ``folder/data``. One thread works for it, so a worker is one core's load."""
    return open_zarr_array(folder / "data" / name, write)


def shard_file_name(shard: int | str, n_axes: int) -> str:
    """The file of an array's shard, within the array's folder; a format for the shard "{}"."""
    return ".".join(["c", str(shard), *["0"] * (n_axes - 1)])


def read_attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a Zarr v3 group; raises `UserError` if it is none."""
    path = folder / "zarr.json"
    try:
        node = read_json(path)
        if node["zarr_format"] != 3 or node["node_type"] != "group":
            raise KeyError("zarr_format")
        attributes: dict[str, Any] = node.get("attributes", {})
        if not isinstance(attributes, dict):
            raise TypeError("attributes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: not a Zarr v3 group ({path.name}: {error!r})") from error
    return attributes


def read_array(array: ts.TensorStore, folder: Path) -> NDArray[Any]:
    """A whole array in memory; raises `UserError` if its bytes cannot be decoded."""
    try:
        return np.asarray(array.read().result())
    except ValueError as error:  # whatever tensorstore finds
        raise UserError(
            f"{folder}: cannot be decoded ({error}); convert the dataset again, or copy the store "
            "again"
        ) from error


def array_spec(folder: Path) -> dict[str, Any]:
    """Tensorstore's description of a Zarr v3 array."""
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "context": {"data_copy_concurrency": {"limit": 1}},
        # So a missing file always means damage, and never a shard of zeros.
        "store_data_equal_to_fill_value": True,
    }


def open_zarr_array(folder: Path, write: bool = False) -> ts.TensorStore:
    """Open an array; raises `UserError` if there is none."""
    try:
        return ts.open(array_spec(folder), read=True, write=write).result()
    except ValueError as error:
        raise UserError(f"{folder}: not a Zarr v3 array ({error})") from error
