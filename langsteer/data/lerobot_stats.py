"""Statistics of a LeRobot dataset, of its files one by one and then of all.

Example::

    sums = Sums()
    sums.add("action", np.zeros(7), features["action"])
    stats = merged([sums.to_dict()], features, frames=1)     # the content of stats.json
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = Mapping[str, Mapping[str, Any]]


class Sums:
    """Count, sum, sum of squares, least and greatest of each feature's last axis.

    Images are taken in [0, 1], depth in its unit, as LeRobot does.
    """

    def __init__(self) -> None:
        self._rows: dict[str, NDArray[np.float64]] = {}

    def add(self, name: str, value: NDArray[Any], feature: Mapping[str, Any]) -> None:
        """Count one frame's value."""
        width = feature["shape"][-1]
        flat = np.asarray(value, np.float64).reshape(-1, width)
        if feature["dtype"] == "image" and width == 3:
            flat = flat / 255
        row = np.array(
            [
                np.full(width, len(flat)),
                flat.sum(axis=0),
                (flat**2).sum(axis=0),
                flat.min(axis=0),
                flat.max(axis=0),
            ]
        )
        self._rows[name] = row if name not in self._rows else _together(self._rows[name], row)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: row.tolist() for name, row in self._rows.items()}


def _together(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.minimum(one[3], other[3]), np.maximum(one[4], other[4])
    return np.array([*(one[:3] + other[:3]), low, high])


def merged(parts: Iterable[Mapping[str, Any]], features: Features, frames: int) -> dict[str, Any]:
    """The content of ``stats.json``: min, max, mean, std and count of each feature."""
    rows: dict[str, NDArray[np.float64]] = {}
    for part in parts:
        for name, values in part.items():
            row = np.array(values)
            rows[name] = row if name not in rows else _together(rows[name], row)
    return {name: _stats(row, features[name], frames) for name, row in rows.items()}


def _stats(row: NDArray[np.float64], feature: Mapping[str, Any], frames: int) -> dict[str, Any]:
    count, total, squares, low, high = row
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # LeRobot has one number for each channel of an image, and one for each value of the rest.
    shape = (len(mean), 1, 1) if feature["dtype"] == "image" else tuple(feature["shape"])
    values = {"min": low, "max": high, "mean": mean, "std": std}
    found: dict[str, Any] = {
        key: (value.reshape(shape) if shape[0] == len(mean) else np.tile(value, (shape[0], 1)))
        for key, value in values.items()
    }
    return {key: value.tolist() for key, value in found.items()} | {"count": [frames]}
