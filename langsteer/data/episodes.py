"""The table of a store's episodes: where each comes from, its task and its sentence.

Example::

    store = open_store("data/calvin.zarr")
    drawers = store.episodes.select(store.episodes.task == "open_drawer")
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.settings import Natural64


@dataclass(frozen=True)
class EpisodeTable:
    """One row for each of the K episodes, in the order of ``episode_ends``.

    Attributes:
        split: (K,) str, "training" or "validation", as in the CALVIN folder.
        task: (K,) str, CALVIN's name of the task; empty if unknown, as for play.
        instruction: (K,) str, the sentence of the annotation; empty likewise.
        first_frame: (K,) int64, CALVIN's number of the first frame.
        group: (K,) int64; episodes with common frames in the source, directly or through others,
            have the same number. Split by group to keep validation free of training frames.
        source: (K,) int64, the dataset of its origin, among those converted together.
    """

    split: NDArray[np.str_]
    task: NDArray[np.str_]
    instruction: NDArray[np.str_]
    first_frame: NDArray[np.int64]
    group: NDArray[np.int64]
    source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.source):
            object.__setattr__(self, "source", np.zeros(len(self.group), np.int64))

    def __len__(self) -> int:
        return len(self.group)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> "EpisodeTable":
        """The rows chosen by a mask or by indices; groups are numbered anew from 0."""
        columns = {name: getattr(self, name)[keep] for name in COLUMNS}
        columns["group"] = np.unique(columns["group"], return_inverse=True)[1].astype(np.int64)
        return EpisodeTable(**columns)

    def to_dict(self) -> dict[str, list[Any]]:
        """Column name to list of plain values; ``source`` only if there are several."""
        columns = {name: getattr(self, name).tolist() for name in COLUMNS}
        if not self.source.any():
            del columns["source"]
        return columns

    @classmethod
    def from_dict(cls, columns: Mapping[str, Iterable[Any]]) -> "EpisodeTable":
        """The inverse of `to_dict`, of columns as `EpisodeColumns` describes them."""
        return cls(
            **{
                name: np.array(
                    list(columns.get(name, ()) if name == "source" else columns[name]), kind
                )
                for name, kind in COLUMNS.items()
            }
        )


COLUMNS: dict[str, type] = {
    "split": np.str_,
    "task": np.str_,
    "instruction": np.str_,
    "first_frame": np.int64,
    "group": np.int64,
    "source": np.int64,
}


class EpisodeColumns(TypedDict):
    """`EpisodeTable` as plain values."""

    split: list[Literal["training", "validation"]]
    task: list[str]
    instruction: list[str]
    first_frame: list[Natural64]
    group: list[Natural64]
    source: NotRequired[list[Natural64]]
