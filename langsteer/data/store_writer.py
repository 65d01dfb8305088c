"""Create and write a store, see `langsteer.data.store`.

Example::

    create_arrays(folder, pipeline, n_frames)
    open_array(folder, "state", write=True)[0:8].write(states).result()
    write_metadata(folder, pipeline, episode_ends, episodes)
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from langsteer import __version__
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import ARRAYS, FORMAT, FRAMES_PER_SHARD, VERSION, ArraySchema, schema
from langsteer.data.zarr_arrays import array_spec
from langsteer.files import replacing

_LITTLE_ENDIAN: dict[str, object] = {"name": "bytes", "configuration": {"endian": "little"}}


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise OSError if the disk refuses; tensorstore says ValueError."""
    try:
        yield
    except ValueError as error:
        raise OSError(str(error)) from error


@disk_errors()
def create_arrays(
    folder: Path,
    pipeline: ObservationPipeline,
    n_frames: int,
    names: Iterable[str] = ARRAYS,
    frames_per_shard: int = FRAMES_PER_SHARD,
) -> None:
    """Create the arrays of ``folder/data`` without content; existing equal ones stay.

    Raises OSError if the disk refuses.
    """
    for name in names:
        layout = schema(name, pipeline)
        spec = array_spec(folder / "data" / name) | {
            "metadata": _array_metadata(layout, n_frames, frames_per_shard)
        }
        ts.open(spec, open=True, create=True).result()


@disk_errors()
def write_metadata(
    folder: Path,
    pipeline: ObservationPipeline,
    episode_ends: NDArray[np.int64],
    episodes: EpisodeTable,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Write all of a store but its arrays in ``data/``; last of all the root's attributes.

    Raises OSError if the disk refuses.
    """
    ends = np.asarray(episode_ends, dtype=np.int64)
    spec = array_spec(folder / "meta" / "episode_ends") | {
        "metadata": {
            "shape": [len(ends)],
            "data_type": "int64",
            "chunk_grid": _regular_grid([max(1, len(ends))]),
            "codecs": [_LITTLE_ENDIAN, {"name": "crc32c"}],
        }
    }
    if len(ends):
        ts.open(spec, create=True, delete_existing=True).result().write(ends).result()
    else:
        ts.open(spec, create=True, delete_existing=True).result()
    _write_group(folder / "data", {})
    _write_group(folder / "meta", {"episodes": episodes.to_dict()})
    ours = {
        "format": FORMAT,
        "version": VERSION,
        "langsteer_version": __version__,
        "pipeline": pipeline.to_dict(),
    }
    _write_group(folder, ours | dict(attributes or {}))


def _write_group(folder: Path, attributes: Mapping[str, object]) -> None:
    """Write the ``zarr.json`` of a group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    with replacing(folder / "zarr.json") as temporary:
        temporary.write_text(json.dumps(node, indent=1), encoding="utf-8")


def _array_metadata(layout: ArraySchema, n_frames: int, frames_per_shard: int) -> dict[str, object]:
    """The ``zarr.json`` of a sharded array, as tensorstore takes it."""
    codecs: list[dict[str, object]] = [_LITTLE_ENDIAN]
    if layout.dtype == "uint8":
        codecs = [{"name": "bytes"}]
    if layout.compressed:
        # Level 1: the images are mostly for looking at. Conversion must not wait for them.
        codecs.append({"name": "zstd", "configuration": {"level": 1}})
    codecs.append({"name": "crc32c"})  # a flipped bit of a cloud looks like any other number
    sharding = {
        "chunk_shape": list(layout.chunk),
        "codecs": codecs,
        "index_codecs": [_LITTLE_ENDIAN, {"name": "crc32c"}],
    }
    return {
        "shape": [n_frames, *layout.row],
        "data_type": layout.dtype,
        "chunk_grid": _regular_grid([frames_per_shard, *layout.row]),
        # "c.3.0.0" instead of nested folders: those are inodes too.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": 0,
    }


def _regular_grid(chunk: list[int]) -> dict[str, object]:
    return {"name": "regular", "configuration": {"chunk_shape": chunk}}
