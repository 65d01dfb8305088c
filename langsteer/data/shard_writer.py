"""Convert the frames of one shard and write its files.

A shard is the unit of work: whoever converts it reads its frames, makes its point clouds and writes
its file of each array, then a marker that it is done, with the episodes that turned out to be bad.
All of it is a function of the plan, so that it does not matter who does it, when, or how often.

Example::

    for shard in range(plan.n_shards):
        if not is_done(folder, shard):
            write_shard(plan, folder, shard)
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import centre_crop
from langsteer.calvin.dataset import BadFrameError, read_frame
from langsteer.calvin.kinematics import JOINTS, gripper_camera_pose
from langsteer.data.plan import ConversionPlan, FrameSource
from langsteer.data.pointcloud import NoPointsError, point_cloud
from langsteer.data.store import open_array, schema
from langsteer.errors import UserError
from langsteer.files import replacing

Buffers = dict[str, NDArray[Any]]
Advance = Callable[[int], object]


def marker_path(folder: Path, shard: int) -> Path:
    """The file that says that a shard is written."""
    return folder / "done" / f"{shard:06d}.json"


def is_done(folder: Path, shard: int) -> bool:
    """Whether a shard is written whole."""
    return marker_path(folder, shard).is_file()


def bad_episodes(folder: Path) -> dict[int, str]:
    """Why each bad episode is bad, by its index, from the markers of the shards written."""
    reasons: dict[int, str] = {}
    for marker in sorted((folder / "done").glob("*.json")):
        found = json.loads(marker.read_text(encoding="utf-8"))["bad"]
        for episode, reason in found.items():
            reasons.setdefault(int(episode), reason)
    return reasons


def write_shard(
    plan: ConversionPlan,
    folder: Path,
    shard: int,
    advance: Advance = lambda frames: None,
    strict: bool = False,
) -> None:
    """Convert the frames of a shard and write them.

    Args:
        plan: of the conversion.
        folder: the unfinished store, whose arrays exist.
        shard: which one.
        advance: called with the number of rows done since the last call.
        strict: stop at the first bad frame instead of noting its episode.

    Raises:
        UserError: the files cannot be written, or a frame is bad and ``strict`` is set.
    """
    rows = plan.shard_rows(shard)
    buffers: Buffers = {}
    for name in plan.settings.arrays:
        layout = schema(name, plan.pipeline)
        buffers[name] = np.zeros((len(rows), *layout.row), dtype=layout.dtype)
    bad = _fill(plan, rows, buffers, advance, strict)
    for name in plan.settings.arrays:
        # Dropped when written, since encoding needs memory too.
        _write(folder, name, rows, buffers.pop(name))
    with replacing(marker_path(folder, shard)) as temporary:
        temporary.write_text(json.dumps({"bad": bad}), encoding="utf-8")


def _fill(
    plan: ConversionPlan,
    rows: range,
    buffers: Buffers,
    advance: Advance,
    strict: bool,
) -> dict[int, str]:
    """Convert rows into the buffers; returns why each bad episode is bad.

    Windows overlap, and they lie in the order of their frames: a frame that an earlier row of the
    shard shows is copied from there.
    """
    bad: dict[int, str] = {}
    row_of: dict[tuple[str, int], int] = {}
    for row, source in enumerate(plan.sources(rows)):
        key = (source.split.name, source.number)
        if source.episode in bad:
            pass
        elif key in row_of:
            for buffer in buffers.values():
                buffer[row] = buffer[row_of[key]]
        else:
            try:
                _convert_frame(plan, source, row, buffers)
                row_of[key] = row
            except BadFrameError as error:
                if strict:
                    entry = plan.describe(source.episode, str(error))
                    raise UserError(f"{entry} (--strict stops here)") from error
                bad[source.episode] = str(error)
        advance(1)
    return bad


def _convert_frame(plan: ConversionPlan, source: FrameSource, row: int, buffers: Buffers) -> None:
    """Read a frame and put what is stored of it into a row of the buffers."""
    pipeline, config = plan.pipeline, source.split.config
    names = ["rel_actions", "robot_obs", "rgb_static"]
    names += [f"{kind}_{camera}" for camera in pipeline.cameras for kind in ("rgb", "depth")]
    if "depth" in buffers:
        names.append("depth_static")
    path = source.split.frame_path(source.number)
    frame = read_frame(path, dict.fromkeys(names), config)
    depth = {camera: frame[f"depth_{camera}"] for camera in pipeline.cameras}
    colour = {camera: frame[f"rgb_{camera}"] for camera in pipeline.cameras}
    pose = gripper_camera_pose(frame["robot_obs"][JOINTS], config.base_position)
    try:
        buffers["point_cloud"][row] = point_cloud(pipeline, depth, pose, colour)
    except NoPointsError as error:
        raise BadFrameError(f"{path}: {error}") from error
    buffers["action"][row] = frame["rel_actions"]
    buffers["state"][row] = frame["robot_obs"]
    for name, image in (("img", "rgb_static"), ("depth", "depth_static")):
        if name in buffers:
            crop = centre_crop(frame[image], pipeline.static, pipeline.static_crop)
            buffers[name][row] = crop


def _write(folder: Path, name: str, rows: range, values: NDArray[Any]) -> None:
    """Write the rows of a shard; raises `UserError` where the disk refuses."""
    try:
        target = open_array(folder, name, write=True)[rows.start : rows.stop]
        target.write(values, can_reference_source_data_indefinitely=True).result()
    except (ValueError, OSError) as error:  # tensorstore reports a full disk as ValueError
        raise UserError(
            f"{folder}: cannot write {name} ({error}). Make room or choose another place; the same "
            "command then goes on where it stopped"
        ) from error
