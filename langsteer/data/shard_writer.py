"""Convert the frames of one shard and write its files.

A shard is the unit of work: its process reads the frames, makes the point clouds, writes the file
of each array, and then a marker with the bad episodes. All of it is a function of the plan. So it
does not matter who does it, when, or how often.

Example::

    for shard in range(plan.n_shards):
        if not is_done(folder, shard):
            write_shard(plan, folder, shard)
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import centre_crop
from langsteer.calvin.dataset import BadFrameError, DatasetConfig, Folder, read_frame
from langsteer.calvin.kinematics import JOINTS, gripper_camera_pose
from langsteer.data.agreement import turned_images
from langsteer.data.plan import ConversionPlan
from langsteer.data.pointcloud import CAMERAS, NoPointsError, ObservationPipeline, point_cloud
from langsteer.data.store import schema
from langsteer.data.zarr_arrays import open_array
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.reading import read_json
from langsteer.records import problem

Buffers = dict[str, NDArray[Any]]
Advance = Callable[[int], object]


class _Marker(TypedDict):
    """What marks a shard as written."""

    bad: dict[str, str]


def marker_path(folder: Path, shard: int) -> Path:
    """The file that marks a shard as written."""
    return folder / "done" / f"{shard:06d}.json"


def is_done(folder: Path, shard: int) -> bool:
    """Whether a shard is written whole."""
    return marker_path(folder, shard).is_file()


def bad_episodes(folder: Path, n_episodes: int) -> dict[int, str]:
    """Each bad episode's fault, by the episode's index, from the markers of the shards.

    Args:
        folder: the unfinished store.
        n_episodes: of the plan.

    Raises:
        UserError: a marker is damaged.
    """
    reasons: dict[int, str] = {}
    for marker in sorted((folder / "done").glob("*.json")):
        for episode, reason in _read_marker(marker, n_episodes)["bad"].items():
            reasons.setdefault(int(episode), reason)
    return reasons


def _read_marker(path: Path, n_episodes: int) -> _Marker:
    try:
        found: _Marker = read_json(path)
        wrong = problem(found, _Marker)
    except ValueError as error:
        wrong = str(error)
    wrong = wrong or next(
        (
            f"bad={key!r:.100}: expected an index below {n_episodes}"
            for key in found["bad"]
            if not _is_index(key, n_episodes)
        ),
        None,
    )
    if wrong:
        raise UserError(f"{path}: damaged: {wrong}; delete it, and its shard is converted again")
    return found


def _is_index(text: str, below: int) -> bool:
    # Python reads no number of thousands of digits.
    return text.isdecimal() and len(text) < 20 and int(text) < below


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
        folder: the unfinished store with its arrays.
        shard: its number.
        advance: called with the number of rows done since the last call.
        strict: stop at the first bad frame instead of noting its episode.

    Raises:
        UserError: the files cannot be written, or a frame is bad and ``strict`` is set.
    """
    # A shard is a file of each array: it is filled in memory and written whole.
    rows = plan.shard_rows(shard)
    buffers: Buffers = {}
    for name in plan.settings.arrays:
        layout = schema(name, plan.pipeline)
        buffers[name] = np.zeros((len(rows), *layout.row), dtype=layout.dtype)
    bad = _fill(plan, rows, buffers, advance, strict)
    for name in plan.settings.arrays:
        # Freed when written, since encoding needs memory too.
        _write(folder, name, rows, buffers.pop(name))
    # The marker comes last: a kill before it leaves the shard to be written again.
    with replacing(marker_path(folder, shard)) as temporary:
        temporary.write_text(json.dumps({"bad": bad}), encoding="utf-8")


def _fill(
    plan: ConversionPlan,
    rows: range,
    buffers: Buffers,
    advance: Advance,
    strict: bool,
) -> dict[int, str]:
    """Convert rows into the buffers; returns each bad episode's fault.

    Windows overlap and lie in the order of their frames. So a frame is copied if an earlier row of
    the shard shows it.
    """
    bad: dict[int, str] = {}
    row_of: dict[tuple[str, int], int] = {}
    for row, source in enumerate(plan.sources(rows)):
        # Overlapping windows show a frame several times; it is converted once in a shard.
        key = (source.split.name, source.number)
        if source.episode in bad:
            pass
        elif key in row_of:
            for buffer in buffers.values():
                buffer[row] = buffer[row_of[key]]
        else:
            try:
                path = source.split.frame_path(source.number)
                values = convert_frame(plan.pipeline, source.split.config, path, buffers)
                for name, buffer in buffers.items():
                    buffer[row] = values[name]
                row_of[key] = row
            except BadFrameError as error:
                # One bad frame spoils its episode, not the conversion: it is noted and left out at
                # the end.
                if strict:
                    entry = plan.describe(source.episode, str(error))
                    raise UserError(f"{entry} (--strict stops here)") from error
                bad[source.episode] = str(error)
        advance(1)
    return bad


def convert_frame(
    pipeline: ObservationPipeline, config: DatasetConfig, path: Folder, images: Collection[str]
) -> dict[str, NDArray[Any]]:
    """The stored content of one frame of a CALVIN folder.

    Args:
        pipeline: how its cloud is made.
        config: of the frame's split.
        path: of the frame's file.
        images: those wanted, of "img" and "depth".

    Returns:
        ``point_cloud`` (P, 6) float32, ``action`` (7,) and ``state`` (15,) in the file's precision,
        ``img`` (S, S, 3) uint8 and ``depth`` (S, S) float32 metres, as far as wanted.

    Raises:
        BadFrameError: the file is missing or damaged, a depth image is turned, or no camera sees a
            point in the box.
        UserError: the system does not let the file be read.
    """
    wanted = {"img": "rgb_static", "depth": "depth_static"}
    names = ["rel_actions", "robot_obs", *(wanted[name] for name in wanted if name in images)]
    names += [f"{kind}_{camera}" for camera in pipeline.cameras for kind in ("rgb", "depth")]
    # One pass over the file for all arrays: decompression is most of the reading.
    frame = read_frame(path, dict.fromkeys(names), config)
    depth = {camera: frame[f"depth_{camera}"] for camera in pipeline.cameras}
    colour = {camera: frame[f"rgb_{camera}"] for camera in pipeline.cameras}
    # From the joints, not from the TCP: the images were rendered with these.
    pose = gripper_camera_pose(frame["robot_obs"][JOINTS], config.base_position)
    turned = turned_images(pipeline, depth, pose) if len(depth) == len(CAMERAS) else ""
    if turned:
        raise BadFrameError(f"{path}: {turned}")
    try:
        cloud = point_cloud(pipeline, depth, pose, colour)
    except NoPointsError as error:
        raise BadFrameError(f"{path}: {error}") from error
    crops = {
        name: centre_crop(frame[wanted[name]], pipeline.static, pipeline.static_crop)
        for name in wanted
        if name in images
    }
    arrays = {"point_cloud": cloud, "action": frame["rel_actions"], "state": frame["robot_obs"]}
    return arrays | crops


def _write(folder: Path, name: str, rows: range, values: NDArray[Any]) -> None:
    """Write the rows of a shard; raises `UserError` if the disk refuses."""
    try:
        target = open_array(folder, name, write=True)[rows.start : rows.stop]
        target.write(values, can_reference_source_data_indefinitely=True).result()
    except (ValueError, OSError) as error:  # tensorstore reports a full disk as ValueError
        raise UserError(
            f"{folder}: cannot write {name} ({error}). Make room or choose another place; the same "
            "command then goes on where it stopped"
        ) from error
