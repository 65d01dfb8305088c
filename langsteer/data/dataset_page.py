"""One HTML page that shows a store: what is in it, and episodes with clouds, images and curves.

The page needs no network: its data and its JavaScript (plotly) lie within it. One time slider moves
everything. A store holds no images of the gripper's camera; where it stood is drawn in the cloud.

Example::

    write_page(open_store("data/calvin.zarr"), [0, 3], Path("outputs/dataset.html"))
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from langsteer.calvin.cameras import Camera, Pose
from langsteer.calvin.kinematics import gripper_camera_pose
from langsteer.data.dataset_overview import overview
from langsteer.data.store import Store
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.html_page import filled
from langsteer.progress import track


@dataclass(frozen=True)
class Curves:
    """Values that share an axis: a title with the unit, the array, its columns and their names."""

    title: str
    array: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    angles: bool = False


CURVES = (
    Curves("translation", "action", (0, 1, 2), ("dx", "dy", "dz")),
    Curves("rotation", "action", (3, 4, 5), ("d roll", "d pitch", "d yaw")),
    Curves("tcp position (m)", "state", (0, 1, 2), ("x", "y", "z")),
    Curves("tcp angles (rad, unwrapped)", "state", (3, 4, 5), ("roll", "pitch", "yaw"), True),
    Curves("gripper command", "action", (6,), ("1 opens",)),
    Curves("gripper width (m)", "state", (6,), ("width",)),
    Curves("joints (rad)", "state", tuple(range(7, 14)), tuple("1234567")),
)
_FRUSTUM = {"static": 4.0, "gripper": 0.12}
"""Metres from a camera to the drawn end of what it sees."""


def write_page(
    store: Store, episodes: Sequence[int], path: Path, frames_per_episode: int = 120
) -> None:
    """Write the page.

    Args:
        store: to be shown.
        episodes: indices of the episodes; each can be chosen in the page.
        path: of the page.
        frames_per_episode: longer episodes are thinned out evenly, to keep the page small (about
            60 kB a frame).

    Raises:
        UserError: there is no such episode, or no frame is to be shown.
    """
    if frames_per_episode < 1:
        raise UserError(f"{frames_per_episode} frames of each episode: at least 1 is needed")
    wrong = [index for index in episodes if not 0 <= index < len(store.episodes)]
    if wrong or not episodes:
        raise UserError(
            f"episodes {list(episodes)}: the store has those from 0 to {len(store.episodes) - 1}"
        )
    shown = [
        _episode(store, index, frames_per_episode)
        for index in track(episodes, "drawing", unit="episode")
    ]
    data = {
        "box": store.pipeline.box,
        "curves": [{"title": one.title, "names": one.names} for one in CURVES],
        "static_camera": _static_frustum(store),
        "overview": overview(store),
        "episodes": shown,
    }
    template = resources.files("langsteer.data").joinpath("dataset_page.html").read_text("utf-8")
    page = filled(template, store.path.name, data)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _episode(store: Store, index: int, most_frames: int) -> dict[str, Any]:
    """The page's data of an episode."""
    start, end = int(store.episode_starts[index]), int(store.episode_ends[index])
    count = min(most_frames, end - start)
    rows = np.unique(np.linspace(start, end - 1, count).round().astype(np.int64))
    table = store.episodes
    clouds = [_row(store, "point_cloud", row) for row in rows]
    states = np.stack([_row(store, "state", row) for row in rows])
    return {
        "index": index,
        "split": str(table.split[index]),
        "task": str(table.task[index]),
        "instruction": str(table.instruction[index]),
        "rows": rows.tolist(),
        "numbers": (rows - start + int(table.first_frame[index])).tolist(),
        "coloured": any(cloud[:, 3:].any() for cloud in clouds),
        "clouds": [_cloud(cloud) for cloud in clouds],
        "images": _images(store, "img", rows),
        "depths": _images(store, "depth", rows),
        "path": states[:, :3].astype(float).round(4).tolist(),
        "gripper_camera": _gripper_frusta(store, states),
        "curves": [_curves(store, one, rows) for one in CURVES],
    }


def _static_frustum(store: Store) -> list[list[float]]:
    camera = store.pipeline.static
    return _frustum(camera, camera.world_from_optical(), _FRUSTUM["static"])


def _gripper_frusta(store: Store, states: NDArray[np.float32]) -> list[list[list[float]]]:
    """One for each state (N, 15)."""
    poses = gripper_camera_pose(states[:, 7:14].astype(np.float64))
    return [_frustum(store.pipeline.gripper, pose, _FRUSTUM["gripper"]) for pose in poses]


def _frustum(camera: Camera, pose: Pose, length: float) -> list[list[float]]:
    """Where a camera stands, and the corners of what it sees at a distance: (5, 3) in metres."""
    x, y = (size / (2 * camera.focal) * length for size in (camera.width, camera.height))
    corners = np.array(
        [[0, 0, 0], [-x, -y, length], [x, -y, length], [x, y, length], [-x, y, length]]
    )
    placed: NDArray[np.float64] = corners @ pose[:3, :3].T + pose[:3, 3]
    return placed.round(4).tolist()


def _row(store: Store, name: str, row: int) -> NDArray[Any]:
    return np.asarray(store.array(name)[int(row)].read().result())


def _curves(store: Store, shown: Curves, rows: NDArray[np.int64]) -> list[list[float]]:
    """One list of values for each dimension."""
    episode = store.array(shown.array)[int(rows[0]) : int(rows[-1]) + 1].read().result()
    values = np.asarray(episode)[:, list(shown.columns)]
    if shown.angles:  # those of CALVIN jump by a turn where the hand points straight down
        values = np.unwrap(values, axis=0)
    return values[rows - rows[0]].T.astype(float).round(5).tolist()


def _cloud(cloud: NDArray[np.float32]) -> dict[str, str]:
    """A cloud (P, 6) as base64: XYZ in tenths of a millimetre as int16, RGB as uint8."""
    xyz = (cloud[:, :3] * 1e4).round().clip(-32768, 32767).astype("<i2")
    rgb = (cloud[:, 3:] * 255).round().astype(np.uint8)
    return {"xyz": _base64(xyz.T.tobytes()), "rgb": _base64(rgb.tobytes())}


def _images(store: Store, name: str, rows: NDArray[np.int64]) -> list[str] | None:
    """Frames as PNG in base64; depth as grey, near is bright. None without any, or all black."""
    if name not in store.array_names:
        return None
    images = [_row(store, name, row) for row in rows]
    return [_png(image) for image in images] if any(image.any() for image in images) else None


def _png(image: NDArray[Any]) -> str:
    """An image (H, W, 3) uint8, or a depth image (H, W) float32, as PNG in base64."""
    if image.ndim == 2:
        near, far = np.percentile(image, [0.5, 99.5])
        image = (255 * (far - image) / max(far - near, 1e-6)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
