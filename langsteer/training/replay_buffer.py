"""The frames of a store as training reads them.

Actions and states are small and lie in memory. Points are read at need, from the store's files by
way of the page cache. So all processes of a node share one copy, and a dataset may exceed the
memory. On request the points of the episodes in use lie on the GPU.

Example::

    buffer = ReplayBuffer(open_store("data/calvin.zarr"))
    clouds = buffer.points(np.array([[0, 1], [5, 6]]))    # (2, 2, P, 3) float32
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.data.mapped import MappedArray
from langsteer.data.store import Store
from langsteer.errors import UserError

_ROWS_AT_ONCE = 1024
_SHARE_OF_GPU = 0.5


class ReplayBuffer:
    """All frames of a store, addressed by row.

    Attributes:
        states: (N, 15) float32 ``robot_obs``.
        actions: (N, 7) float32 ``rel_actions``.

    Raises:
        UserError: the store is damaged. All states and actions are looked at, and a sample of the
            clouds; `langsteer.data.inspection` reads every one.
    """

    def __init__(self, store: Store, use_colour: bool = False) -> None:
        self.store = store
        self.states = MappedArray(store.path, "state").read()
        self.actions = MappedArray(store.path, "action").read()
        for name, values in (("state", self.states), ("action", self.actions)):
            _check_finite(store.path, name, values)
        parts = (0, 1) if use_colour else (0,)
        self._parts = [MappedArray(store.path, "point_cloud", part) for part in parts]
        for part in self._parts:
            part.verify_sample()
        self._on_device: Tensor | None = None
        self._places = np.full(len(self.states), -1)

    def points(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Points (..., P, 3 or 6) of rows (...)."""
        parts = [part.gather(rows.ravel()) for part in self._parts]
        clouds = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return clouds.reshape(*rows.shape, *clouds.shape[1:])

    def fits(self, device: torch.device, rows: NDArray[np.int64]) -> bool:
        """Whether the points of some rows take at most half of the GPU's free memory."""
        if device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(device)
        bytes_of_row = sum(int(np.prod(part.row_shape)) * 4 for part in self._parts)
        return len(rows) * bytes_of_row <= _SHARE_OF_GPU * free

    def move_points_to(self, device: torch.device, rows: NDArray[np.int64]) -> None:
        """Copy the points of rows (n,) to a device. `device_points` gives them from then on."""
        shape = self.points(rows[:1]).shape[1:]
        held = torch.empty((len(rows), *shape), dtype=torch.float32, device=device)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[first : first + _ROWS_AT_ONCE]
            held[first : first + len(chunk)] = torch.from_numpy(self.points(chunk))
        self._on_device = held
        self._places[rows] = np.arange(len(rows))

    @property
    def points_on_device(self) -> bool:
        """Whether `device_points` can be asked."""
        return self._on_device is not None

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices on the device of the points of rows (...)."""
        places = self._places[rows]
        assert (places >= 0).all(), "not on the device"
        return places

    def device_points(self, places: Tensor) -> Tensor:
        """Points (..., P, 3 or 6) at ``places`` (...) on the device."""
        assert self._on_device is not None
        return self._on_device[places]


def _check_finite(store_path: Path, name: str, values: NDArray[np.float32]) -> None:
    """Raise `UserError` naming the first row with a NaN or infinity: limits are fitted to all."""
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise UserError(
            f"{store_path}/data/{name}: {len(broken)} rows are not finite, the first is row "
            f"{broken[0]}; look at it with scripts/visualize_dataset.py, convert the dataset again"
        )
