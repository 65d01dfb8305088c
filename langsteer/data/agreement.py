"""Find a depth image stored transposed or upside down, by the other camera's image.

A surface seen by the gripper camera hides from the static camera what lies behind it. With an image
stored the wrong way round, the static camera seems to see through such surfaces. The images count
as turned only if turning one of them, or both, mends that. Images wrong in other ways pass.

Example::

    problem = turned_images(pipeline, {"static": depth_s, "gripper": depth_g}, world_from_gripper)
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import Pose, deproject, project
from langsteer.data.pointcloud import ObservationPipeline, in_box

Image = NDArray[np.float32]
Depth = Mapping[str, Image]

_TURNS: dict[str, Callable[[Image], Image]] = {"transposed": np.transpose, "upside down": np.flipud}
_WHICH = (("static",), ("gripper",), ("static", "gripper"))
_WRONG, _MENDED = 0.1, 0.02  # shares of the surfaces
_MARGIN = 0.02  # metres; the calibration of the cameras is ten times as good
_STRIDE = 4  # pixels of the gripper's image from one surface to the next
_FEWEST = 25  # surfaces; fewer of them tell nothing


def turned_images(pipeline: ObservationPipeline, depth: Depth, gripper_pose: Pose) -> str:
    """Say which depth image of a moment is turned; empty if none is known to be.

    Args:
        pipeline: the cameras and the workspace.
        depth: per camera (H, W) float32, metres along the optical axis, whole images.
        gripper_pose: pose (4, 4) of the gripper camera's optical frame in the world.
    """
    found = _seen_through(pipeline, depth, gripper_pose)
    if found <= _WRONG:
        return ""
    mended, names, turn = min(
        (_seen_through(pipeline, tried, gripper_pose), names, turn)
        for turn in _TURNS
        for names in _WHICH
        if _fits(tried := _turned(depth, names, turn), depth)
    )
    if mended > _MENDED:
        return ""
    images = " and ".join(f"depth_{name}" for name in names)
    return (
        f"{images} {'looks' if len(names) == 1 else 'look'} {turn}: the static camera sees through "
        f"{found:.0%} of what the gripper camera sees, and through {mended:.0%} of it once that is "
        "undone"
    )


def _turned(depth: Depth, names: tuple[str, ...], turn: str) -> Depth:
    return {name: _TURNS[turn](image) if name in names else image for name, image in depth.items()}


def _fits(tried: Depth, depth: Depth) -> bool:
    return all(tried[name].shape == image.shape for name, image in depth.items())


def _seen_through(pipeline: ObservationPipeline, depth: Depth, gripper_pose: Pose) -> float:
    """Share of the gripper camera's surfaces behind which the static camera sees something."""
    column, row, distance = _in_static_view(pipeline, depth["gripper"], gripper_pose)
    if len(distance) < _FEWEST:
        return 0.0
    # The nearest around the pixel: at an edge the cameras' pixels differ by one.
    around = np.add.outer([-pipeline.static.width, 0, pipeline.static.width], [-1, 0, 1])
    pixels = row * pipeline.static.width + column
    nearest = depth["static"].reshape(-1)[pixels + around.reshape(-1, 1)].min(axis=0)
    return float(np.mean(nearest - _MARGIN > distance))


def _in_static_view(
    pipeline: ObservationPipeline, depth: Image, gripper_pose: Pose
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Columns, rows and distances (M,), metres, of the gripper's surfaces in the static image."""
    planes = deproject(depth, pipeline.gripper, gripper_pose, pipeline.pixel_centre)
    points = planes[:, ::_STRIDE, ::_STRIDE].reshape(3, -1)
    points = points[:, in_box(points, pipeline.box)]
    camera = pipeline.static
    pose = camera.world_from_optical()
    column, row, distance = project(points.T, camera, pose, pipeline.pixel_centre)
    inside = (distance > camera.near) & (column >= 1) & (column < camera.width - 1)
    inside &= (row >= 1) & (row < camera.height - 1)
    return column[inside], row[inside], distance[inside]
