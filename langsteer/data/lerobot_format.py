"""LeRobot's dataset format v3.0, as far as CALVIN needs it: features, image bytes, metadata files.

Frames are rows of parquet files, images are PNG and depth is float32 TIFF inside of them, so both
come back to the bit. The format is LeRobot's ``docs/source/lerobot-dataset-v3.mdx`` and
``lerobot/datasets`` of 0.6.

Needs the extra ``[lerobot]``, which is pyarrow.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from langsteer.errors import UserError

try:
    import pyarrow as pa
except ImportError as error:
    raise UserError("LeRobot's format needs pyarrow: pip install 'langsteer[lerobot]'") from error

VERSION, FPS = "v3.0", 30
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
TASKS_PATH, INFO_PATH, STATS_PATH = "meta/tasks.parquet", "meta/info.json", "meta/stats.json"
CALVIN_PATH = "meta/calvin.json"
"""Ours: the cameras, as CALVIN's ``merged_config.yaml`` tells them."""

STATE, SCENE, ACTION, CLOUD = (
    "observation.state",
    "observation.environment_state",
    "action",
    "observation.point_cloud",
)
IMAGES = {name: f"observation.images.{name}" for name in ("static", "gripper")}
DEPTHS = {name: f"observation.depth_{name}" for name in ("static", "gripper")}
"""The names of ``lerobot_env_calvin``: what is trained on them runs in that environment."""

Feature = dict[str, Any]
_SIZE = ["height", "width", "channels"]
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def vector(size: int) -> Feature:
    """A feature of some float32."""
    return {"dtype": "float32", "shape": [size], "names": None}


def image(height: int, width: int) -> Feature:
    """A colour image."""
    return {"dtype": "image", "shape": [height, width, 3], "names": _SIZE}


def depth(height: int, width: int) -> Feature:
    """A depth image in metres."""
    info = {"is_depth_map": True, "depth_unit": "m"}
    return {"dtype": "image", "shape": [height, width, 1], "names": _SIZE, "info": info}


def cloud(points: int) -> Feature:
    """A point cloud (P, 3), metres, world frame."""
    return {"dtype": "float32", "shape": [points, 3], "names": ["point", "xyz"]}


def index_features() -> dict[str, Feature]:
    """What LeRobot adds to each frame by itself."""
    kinds = ("float32", "int64", "int64", "int64", "int64")
    return {
        name: {"dtype": kind, "shape": [1], "names": None}
        for name, kind in zip(INDICES, kinds, strict=True)
    }


def arrow_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """The columns of a data file."""
    return pa.schema([(name, _arrow_type(feature)) for name, feature in features.items()])


def _arrow_type(feature: Feature) -> pa.DataType:
    if feature["dtype"] == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kind: pa.DataType = pa.from_numpy_dtype(np.dtype(feature["dtype"]))
    if feature["shape"] == [1]:
        return kind
    for _ in feature["shape"]:
        kind = pa.list_(kind)
    return kind


def encode(value: NDArray[Any], feature: Feature) -> Any:  # noqa: ANN401 - a cell
    """An array as a parquet cell."""
    if feature["dtype"] != "image":
        return np.asarray(value, feature["dtype"]).tolist()
    content = io.BytesIO()
    picture = Image.fromarray(value)
    if value.dtype == np.float32:
        picture.save(content, "TIFF")
    else:
        picture.save(content, "PNG", compress_level=1)  # a third of the time for a tenth more
    return {"bytes": content.getvalue(), "path": None}


def decode(cell: Any, feature: Feature) -> NDArray[Any]:  # noqa: ANN401 - a cell
    """The array of a parquet cell; depth as float32 (H, W) in metres.

    Raises:
        UserError: an image cannot be read, or has another size.
    """
    if feature["dtype"] != "image":
        return np.asarray(cell, feature["dtype"])
    try:
        pixels = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
    except (TypeError, UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"an image cannot be read ({error}); get the dataset again") from error
    height, width, channels = image_shape(feature)
    if pixels.shape != ((height, width) if channels == 1 else (height, width, channels)):
        raise UserError(f"an image has shape {pixels.shape}, info.json says {feature['shape']}")
    if channels == 1:
        return _metres(pixels, (feature.get("info") or {}).get("depth_unit"))
    return pixels


def image_shape(feature: Feature) -> tuple[int, int, int]:
    """Height, width and channels of an image feature, which may name the channels first."""
    first, second, third = feature["shape"]
    names = feature.get("names") or _SIZE
    if str(names[0]).startswith("channel"):
        return second, third, first
    return first, second, third


def _metres(pixels: NDArray[Any], unit: str | None) -> NDArray[np.float32]:
    """Depth in metres; without a unit, integers are millimetres, as LeRobot has it."""
    if unit == "mm" or (unit is None and pixels.dtype.kind in "iu"):
        pixels = pixels / 1000
    return pixels.astype(np.float32)


def info(
    features: Mapping[str, Feature], frames: int, tasks: int, splits: Mapping[str, range]
) -> dict[str, Any]:
    """The content of ``info.json``."""
    return {
        "codebase_version": VERSION,
        "fps": FPS,
        "features": dict(features),
        "total_episodes": sum(map(len, splits.values())),
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATH,
        "video_path": None,
        "robot_type": "panda",
        "splits": {name: f"{part.start}:{part.stop}" for name, part in splits.items()},
    }


def tasks_table(sentences: Sequence[str]) -> pa.Table:
    """The table of ``tasks.parquet``; pandas reads the sentence as its index."""
    table = pa.table({"task_index": list(range(len(sentences))), "task": list(sentences)})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": one, "numpy_type": other}
        for name, (one, other) in kinds.items()
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in columns],
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def place(pattern: str, number: int) -> Path:
    """The file of a number: a thousand to a folder."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return Path(pattern.format(chunk_index=chunk, file_index=file))
