"""One HTML page with episodes of a store: clouds to turn, images, depth and curves.

The page needs no network: its data and its JavaScript (plotly) lie within it. One time slider moves
everything.

Example::

    write_page(open_store("data/calvin.zarr"), [0, 3], Path("outputs/dataset.html"))
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plotly.offline import get_plotlyjs

from langsteer.data.store import Store
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.progress import track

ACTION_NAMES = ("dx", "dy", "dz", "d roll", "d pitch", "d yaw", "gripper")
STATE_NAMES = (
    "tcp x", "tcp y", "tcp z", "tcp roll", "tcp pitch", "tcp yaw", "width",
    *(f"joint {index}" for index in range(1, 8)),
    "gripper",
)  # fmt: skip


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
        "action_names": ACTION_NAMES,
        "state_names": STATE_NAMES,
        "episodes": shown,
    }
    template = resources.files("langsteer.data").joinpath("dataset_page.html").read_text("utf-8")
    page = (
        template.replace("{{title}}", html.escape(store.path.name))
        .replace("{{plotly}}", get_plotlyjs())
        # "</script" or "<!--" in an instruction would end, or swallow, the script element.
        .replace("{{data}}", json.dumps(data).replace("<", "\\u003c"))
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _episode(store: Store, index: int, most_frames: int) -> dict[str, Any]:
    """The page's data of an episode."""
    start, end = int(store.episode_starts[index]), int(store.episode_ends[index])
    count = min(most_frames, end - start)
    rows = np.unique(np.linspace(start, end - 1, count).round().astype(np.int64))
    table = store.episodes
    return {
        "index": index,
        "split": str(table.split[index]),
        "task": str(table.task[index]),
        "instruction": str(table.instruction[index]),
        "rows": rows.tolist(),
        "numbers": (rows - start + int(table.first_frame[index])).tolist(),
        "clouds": [_cloud(_row(store, "point_cloud", row)) for row in rows],
        "images": _images(store, "img", rows),
        "depths": _images(store, "depth", rows),
        "action": _curves(store, "action", rows),
        "state": _curves(store, "state", rows),
    }


def _row(store: Store, name: str, row: int) -> NDArray[Any]:
    return np.asarray(store.array(name)[int(row)].read().result())


def _curves(store: Store, name: str, rows: NDArray[np.int64]) -> list[list[float]]:
    """One list of values for each dimension."""
    values = np.stack([_row(store, name, row) for row in rows])
    return values.T.astype(float).round(5).tolist()


def _cloud(cloud: NDArray[np.float32]) -> dict[str, str]:
    """A cloud (P, 6) as base64: XYZ in tenths of a millimetre as int16, RGB as uint8."""
    xyz = (cloud[:, :3] * 1e4).round().clip(-32768, 32767).astype("<i2")
    rgb = (cloud[:, 3:] * 255).round().astype(np.uint8)
    return {"xyz": _base64(xyz.T.tobytes()), "rgb": _base64(rgb.tobytes())}


def _images(store: Store, name: str, rows: NDArray[np.int64]) -> list[str] | None:
    """Frames as PNG in base64; depth as grey, near is bright. None if the store has none."""
    if name not in store.array_names:
        return None
    return [_png(_row(store, name, row)) for row in rows]


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
