"""The one way from depth images to the policy's point cloud.

Conversion and rollout call the same `point_cloud` with the same `ObservationPipeline`. Its
parameters travel from the Zarr's attributes to the checkpoint to the rollout. The steps: deproject
each camera's depth, keep the points in the workspace box, sample each camera's points by farthest
point sampling, put the samples together.

Example::

    pipeline = ObservationPipeline()
    cloud = point_cloud(pipeline, {"static": depth_s, "gripper": depth_g}, world_from_gripper)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import (
    GRIPPER_CAMERA,
    PIXEL_CENTRE,
    STATIC_CAMERA,
    Camera,
    FixedCamera,
    Pose,
    centre_crop,
    deproject,
    sees,
)
from langsteer.errors import UserError
from langsteer.nesting import differences
from langsteer.records import problem
from langsteer.settings import plain

Interval = tuple[float, float]
Box = tuple[Interval, Interval, Interval]

CAMERAS = ("static", "gripper")
WORKSPACE: Box = ((-0.5, 0.5), (-0.55, 0.25), (0.28, 0.85))
"""Keeps CALVIN's table, drawer, blocks and arm; x, y, z bounds in metres, world frame."""


MOST_POINTS = 1 << 20
"""Points of a cloud; more would be a mistake of a digit or two."""
_GRID = 7  # places along each axis of the box, odd: one is its middle
_LEAST_SHARE = 0.2  # CALVIN's camera shows 0.45 of the default box


class NoPointsError(ValueError):
    """No camera sees a point inside the workspace box, so there is no cloud."""


@dataclass(frozen=True)
class ObservationPipeline:
    """Every parameter of the observation's point cloud.

    Attributes:
        n_points: points of a cloud (P), shared equally by the cameras.
        box: workspace ((x0, x1), (y0, y1), (z0, z1)) in metres, world frame, bounds included.
        cameras: the contributing cameras, of "static" and "gripper".
        static_crop: side in pixels of the central part of the static image; the rest is not used.
        static: the static camera.
        gripper: the gripper camera.
        pixel_centre: the renderer samples a pixel here (see `calvin.cameras.PIXEL_CENTRE`). It is a
            property of the renderer and not of the policy's view of the world.
    """

    n_points: int = 2048
    box: Box = WORKSPACE
    cameras: tuple[str, ...] = CAMERAS
    static_crop: int = 160
    static: FixedCamera = STATIC_CAMERA
    gripper: Camera = GRIPPER_CAMERA
    pixel_centre: tuple[float, float] = PIXEL_CENTRE["egl"]

    def __post_init__(self) -> None:
        """Raise `UserError` for parameters without a possible cloud."""
        if not self.cameras or set(self.cameras) - set(CAMERAS):
            raise UserError(f"cameras {self.cameras}: choose one or both of {CAMERAS}")
        if len(set(self.cameras)) != len(self.cameras):
            raise UserError(f"cameras {self.cameras}: a camera is named twice")
        if self.n_points < len(self.cameras):
            raise UserError(f"{self.n_points} points: at least one for each camera is needed")
        if self.n_points > MOST_POINTS:
            raise UserError(f"{self.n_points} points: {MOST_POINTS} at most")
        if any(not low < high for low, high in self.box):
            raise UserError(f"workspace box {self.box}: each lower bound must be below the upper")
        if not 0 < self.static_crop <= min(self.static.width, self.static.height):
            raise UserError(
                f"crop of {self.static_crop} pixels: the static image has "
                f"{self.static.width} x {self.static.height}"
            )
        if "static" in self.cameras and not self._shows_the_box():
            raise UserError(
                f"the static camera, at {self.static.look_from} and turned to "
                f"{self.static.look_at}, shows neither the middle nor a fifth of the workspace box "
                f"{self.box}; are its position and direction right?"
            )

    def _shows_the_box(self) -> bool:
        """Whether the static camera looks at the workspace, and not beside it."""
        axes = [np.linspace(low, high, _GRID) for low, high in self.box]
        seen = sees(self.static, np.array(list(product(*axes))), self.static_crop)
        return bool(seen[len(seen) // 2]) or seen.mean() >= _LEAST_SHARE

    def to_dict(self) -> dict[str, Any]:
        """All parameters in plain JSON types."""
        return {key: plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ObservationPipeline":
        """The inverse of `to_dict`.

        Raises:
            UserError: a parameter is missing or unknown, or its value makes no sense.
        """
        parts = {key: _tuples(value) for key, value in values.items()}
        _check_names(parts, cls, "observation pipeline")
        cameras = {"static": FixedCamera, "gripper": Camera}
        for name, kind in cameras.items():
            if isinstance(parts[name], dict):  # or it is the next line's problem
                _check_names(parts[name], kind, f"{name} camera")
        wrong = problem(parts, cls, "observation pipeline")
        if wrong:
            raise UserError(wrong)
        for name, kind in cameras.items():
            try:
                parts[name] = kind(**parts[name])
            except ValueError as error:
                raise UserError(f"{name} camera: {error}") from error
        return cls(**parts)

    def check_compatible(self, other: "ObservationPipeline") -> None:
        """Raise `UserError` listing the differences to ``other``, if it sees another cloud.

        ``pixel_centre`` does not count: it follows the renderer, and each cloud is right with its
        own renderer's.
        """
        line = "  {name}: {one} against {other}"
        differing = differences(self.to_dict(), other.to_dict(), line, ignored="pixel_centre")
        if differing:
            raise UserError(
                "the observation pipelines differ, so the policy would see other point clouds than "
                f"those that it was trained on:\n{differing}"
            )


def point_cloud(
    pipeline: ObservationPipeline,
    depth: Mapping[str, NDArray[np.float32]],
    gripper_pose: Pose,
    colour: Mapping[str, NDArray[np.uint8]] | None = None,
) -> NDArray[np.float32]:
    """The fused, cropped, sampled point cloud of one moment.

    Each camera gives an equal share of the points. A camera with fewer points in the box gives all
    of them, and the others fill up. If all together see fewer than P, the points repeat in order.
    The result is a function of the input alone: no random numbers.

    Args:
        pipeline: the parameters.
        depth: per camera (H, W) float32, metres along the optical axis. The static image may come
            whole or as its centre crop already.
        gripper_pose: pose (4, 4) of the gripper camera's optical frame in the world.
        colour: per camera (H, W, 3) uint8, the same pixels as ``depth``, or None.

    Returns:
        (P, 6) float32, XYZ in metres in the world frame and RGB in [0, 1]; (P, 3) without colour.

    Raises:
        NoPointsError: no camera sees a point in the box.
        ValueError: an image has another size than its camera.
    """
    # Crop first: most pixels show the floor and the walls, and sampling is the costly step.
    seen = [_points_in_box(pipeline, camera, depth, gripper_pose) for camera in pipeline.cameras]
    # Shares come before sampling, so an empty view does not shrink the cloud.
    shares = _shares(pipeline.n_points, [len(points) for points, _ in seen])
    parts = []
    for camera, (points, pixels), share in zip(pipeline.cameras, seen, shares, strict=True):
        chosen = farthest_point_indices(points, share)
        parts.append(points[chosen])
        if colour is not None:
            rgb = _colours(pipeline, camera, colour[camera], pixels[chosen])
            parts[-1] = np.concatenate([parts[-1], rgb], axis=1)
    cloud = np.concatenate(parts)
    if not len(cloud):
        raise NoPointsError("no camera sees a point inside the workspace box")
    # The network's input has a fixed size; repeated points change no maximum.
    if len(cloud) < pipeline.n_points:
        cloud = cloud[np.arange(pipeline.n_points) % len(cloud)]
    return cloud


def farthest_point_indices(points: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices (K,) of a farthest point sample of ``points`` (M, 3), K = min(M, count).

    The order is exact and greedy. Its first point depends on the points alone. If there are fewer
    points than asked for, all come in their order.
    """
    if len(points) <= count:
        return np.arange(len(points))
    from langsteer.data.farthest_points import farthest_points  # numba; training does not sample

    return farthest_points(points, count)


def _points_in_box(
    pipeline: ObservationPipeline,
    name: str,
    depth: Mapping[str, NDArray[np.float32]],
    gripper_pose: Pose,
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """All points (M, 3) of one camera inside the box, and their pixels (M,)."""
    camera, crop = _view(pipeline, name)
    pose = pipeline.static.world_from_optical() if name == "static" else gripper_pose
    image = _cropped(depth[name], camera, crop, f"{name} depth")
    planes = deproject(image, camera, pose, pipeline.pixel_centre, crop).reshape(3, -1)
    inside = np.flatnonzero(in_box(planes, pipeline.box))
    # Axis by axis: a gather from three planes is faster than a transposition.
    points = np.empty((len(inside), 3), dtype=np.float32)
    for axis in range(3):
        points[:, axis] = planes[axis][inside]
    return points, inside


def _colours(
    pipeline: ObservationPipeline,
    name: str,
    image: NDArray[np.uint8],
    pixels: NDArray[np.intp],
) -> NDArray[np.float32]:
    """Colours (K, 3) in [0, 1] of the given pixels of a camera's image."""
    camera, crop = _view(pipeline, name)
    used = _cropped(image, camera, crop, f"{name} image")
    rows, columns = np.divmod(pixels, used.shape[1])
    return used[rows, columns].astype(np.float32) / np.float32(255)


def _view(pipeline: ObservationPipeline, name: str) -> tuple[Camera, int | None]:
    """A camera, and the side of the used part of its image; None for all of it."""
    if name == "static":
        return pipeline.static, pipeline.static_crop
    return pipeline.gripper, None


def _cropped(image: NDArray[Any], camera: Camera, crop: int | None, what: str) -> NDArray[Any]:
    """The used part of an image; raises ValueError for another size than the camera's."""
    size = image.shape[:2]
    if crop is not None and size == (crop, crop):
        return image
    if size != (camera.height, camera.width):
        raise ValueError(f"{what}: {size} pixels, the camera has {camera.height, camera.width}")
    return image if crop is None else centre_crop(image, camera, crop)


def in_box(planes: NDArray[np.float32], box: Box) -> NDArray[np.bool_]:
    """A mask of the points of the planes (3, M) in the box; a NaN lies nowhere."""
    inside = np.ones(planes.shape[1], dtype=np.bool_)
    for plane, (low, high) in zip(planes, box, strict=True):
        inside &= plane >= np.float32(low)
        inside &= plane <= np.float32(high)
    return inside


def _shares(total: int, available: list[int]) -> list[int]:
    """Number of points of each camera: equal shares of ``total``, as far as available.

    If a camera has too few points, the first camera with more fills up. An odd point goes to the
    first camera.
    """
    equal, rest = divmod(total, len(available))
    wanted = [equal + (index < rest) for index in range(len(available))]
    shares = [min(pair) for pair in zip(wanted, available, strict=True)]
    for index, count in enumerate(available):
        shares[index] += min(total - sum(shares), count - shares[index])
    return shares


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Lists as tuples, all the way down."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _check_names(values: Mapping[str, Any], kind: type, what: str) -> None:
    """Raise `UserError` unless ``values`` names the fields of the dataclass and nothing else."""
    expected, found = {field.name for field in fields(kind)}, set(values)
    if found != expected:
        raise UserError(
            f"{what}: missing {sorted(expected - found)}, unknown {sorted(found - expected)}; "
            "was it written by another version of LangSteer?"
        )
