"""Small stores of arrays in memory, for the tests and the other benchmarks.

Example::

    write_store(path, {"state": states, ...}, ends, episodes, ObservationPipeline(n_points=64))
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import FRAMES_PER_SHARD, Store, open_store
from langsteer.data.store_writer import create_arrays, write_metadata
from langsteer.data.zarr_arrays import open_array


def write_store(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    episode_ends: NDArray[np.int64],
    episodes: EpisodeTable,
    pipeline: ObservationPipeline,
    frames_per_shard: int = FRAMES_PER_SHARD,
) -> Store:
    """Write a store and open it. ``path`` must not exist."""
    path.mkdir()
    create_arrays(path, pipeline, int(episode_ends[-1]), arrays, frames_per_shard)
    for name, values in arrays.items():
        open_array(path, name, write=True).write(values).result()
    write_metadata(path, pipeline, episode_ends, episodes)
    return open_store(path)
