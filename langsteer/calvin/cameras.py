"""CALVIN's two cameras: pinhole parameters, poses, and depth images turned into points.

Frames: the optical frame of a camera has x right, y down, z forward (OpenCV). A pose ``a_from_b``
is a (4, 4) float64 matrix from homogeneous points of frame b to frame a; metres.

Numbers come from CALVIN's ``conf/cameras`` (equal to the ``merged_config.yaml`` of the official
datasets) and from its robot's URDF.

Example::

    world_from_optical = STATIC_CAMERA.world_from_optical()
    points = deproject(depth, STATIC_CAMERA, world_from_optical, PIXEL_CENTRE["egl"])
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pose = NDArray[np.float64]
Vector = tuple[float, float, float]

# A renderer's sample of pixel (u, v), in pixels from the top left corner of the image. Fitted to
# the table top at its known height: EGL samples pixel centres, TinyRenderer pixel corners.
PIXEL_CENTRE: dict[str, tuple[float, float]] = {"egl": (0.5, 0.5), "tiny": (0.0, 1.0)}


MOST_PIXELS = 4096
"""Of a side of an image: its frames still fit into memory."""
_FAR = 1000.0  # metres; nothing of a robot's world is further away
_LEAST_SINE = 1e-3


def _require(holds: bool | np.bool_, found: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{found}, expected {expected}")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and the principal point at the image's centre.

    ``width`` and ``height`` are pixels, ``fov`` is the vertical field of view in degrees, ``near``
    and ``far`` are the clipping planes in metres.

    Raises:
        ValueError: no camera has such numbers.
    """

    width: int
    height: int
    fov: float
    near: float
    far: float

    def __post_init__(self) -> None:
        size = f"{self.width} x {self.height} pixels"
        _require(min(self.width, self.height) >= 1, size, "1 or more")
        _require(max(self.width, self.height) <= MOST_PIXELS, size, f"{MOST_PIXELS} at most")
        _require(0.1 <= self.fov <= 170, f"a field of view of {self.fov}", "0.1 to 170 degrees")
        planes = f"clipping planes at {self.near} and {self.far} m"
        _require(0 < self.near < self.far < math.inf, planes, "0 < near < far")

    @property
    def focal(self) -> float:
        """Focal length in pixels, of both axes."""
        return self.height / (2.0 * math.tan(math.radians(self.fov) / 2.0))

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point (u, v) in pixels from the top left corner."""
        return self.width / 2.0, self.height / 2.0


@dataclass(frozen=True)
class FixedCamera(Camera):
    """A camera fixed in the world at ``look_from``, looking at ``look_at`` (metres)."""

    look_from: Vector
    look_at: Vector
    up: Vector

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("look_from", "look_at", "up"):
            value = getattr(self, name)
            _require(all(abs(x) <= _FAR for x in value), f"{name} {value}", f"{_FAR} m at most")
        forward = np.subtract(self.look_at, self.look_from)
        right = np.cross(forward, self.up)
        shape = f"a camera from {self.look_from} at {self.look_at}, upwards {self.up}"
        # The sine between the two directions, without a division by zero.
        least = _LEAST_SINE * np.linalg.norm(forward) * np.linalg.norm(self.up)
        _require(np.linalg.norm(right) > least, shape, "three points that are not in line")

    def world_from_optical(self) -> Pose:
        """Pose (4, 4) of the optical frame in the world, read-only."""
        return _pose(self)


@functools.lru_cache(maxsize=16)  # it is asked for at each frame
def _pose(camera: FixedCamera) -> Pose:
    pose = look_at_pose(camera.look_from, camera.look_at, camera.up)
    pose.setflags(write=False)
    return pose


STATIC_CAMERA = FixedCamera(
    width=200,
    height=200,
    fov=10.0,
    near=0.01,
    far=10.0,
    look_from=(2.871459009488717, -2.166602199425597, 2.555159848480571),
    look_at=(-0.026242351159453392, -0.0302329882979393, 0.3920000493526459),
    up=(0.4041403970338857, 0.22629790978217404, 0.8862616969685161),
)
GRIPPER_CAMERA = Camera(width=84, height=84, fov=75.0, near=0.01, far=2.0)


def sees(camera: FixedCamera, points: NDArray[np.float64], crop: int) -> NDArray[np.bool_]:
    """Which points (K, 3), world frame, the central ``crop`` x ``crop`` pixels show: (K,)."""
    pose = camera.world_from_optical()
    x, y, depth = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    widest = depth * crop / (2 * camera.focal)
    in_front = (depth > camera.near) & (depth < camera.far)
    return np.asarray(in_front & (np.abs(x) <= widest) & (np.abs(y) <= widest))


def look_at_pose(look_from: Vector, look_at: Vector, up: Vector) -> Pose:
    """Pose (4, 4) of an optical frame at ``look_from``, looking at ``look_at``."""
    eye = np.asarray(look_from, dtype=np.float64)
    forward = np.asarray(look_at, dtype=np.float64) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = eye
    return pose


def rotation_from_euler(euler: NDArray[np.floating] | Vector) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3) of extrinsic XYZ Euler angles (..., 3) in radians.

    R = Rz(c) Ry(b) Rx(a), the convention of PyBullet, URDF and CALVIN's ``robot_obs[3:6]``.
    """
    angles = np.asarray(euler, dtype=np.float64)
    (sa, sb, sc), (ca, cb, cc) = (np.moveaxis(f(angles), -1, 0) for f in (np.sin, np.cos))
    rows = [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_from_euler(
    position: NDArray[np.floating] | Vector, euler: NDArray[np.floating] | Vector
) -> Pose:
    """Poses (..., 4, 4) from positions (..., 3) in metres and extrinsic XYZ angles (..., 3)."""
    rotation = rotation_from_euler(euler)
    pose = np.zeros((*rotation.shape[:-2], 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = position
    pose[..., 3, 3] = 1.0
    return pose


def _tcp_from_optical() -> Pose:
    """The gripper camera in the TCP's frame, from panda_longer_finger.urdf.

    Both hang on the hand: the TCP at (0, 0, 0.14), the camera link at (-0.1, 0, 0) turned by
    (1.3, 0, -1.57). The camera looks along its link's +y and has the link's -z upwards.
    """
    hand_from_tcp = pose_from_euler((0.0, 0.0, 0.14), (0.0, 0.0, 0.0))
    hand_from_link = pose_from_euler((-0.1, 0.0, 0.0), (1.3, 0.0, -1.57))
    link_from_optical = np.eye(4)
    link_from_optical[:3, :3] = [[-1, 0, 0], [0, 0, 1], [0, 1, 0]]
    return np.linalg.inv(hand_from_tcp) @ hand_from_link @ link_from_optical


T_TCP_OPTICAL: Pose = _tcp_from_optical()
"""Pose (4, 4) of the gripper camera's optical frame in the TCP's frame; it never changes."""


def rays(
    camera: Camera, pixel_centre: tuple[float, float], crop: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Directions of the pixels at unit depth: x of each column (W,) and y of each row (H,).

    With ``crop``, only those of the central ``crop`` x ``crop`` pixels.
    """
    left, top = crop_corner(camera, crop)
    width, height = (camera.width, camera.height) if crop is None else (crop, crop)
    u = left + np.arange(width) + pixel_centre[0]
    v = top + np.arange(height) + pixel_centre[1]
    x = (u - camera.centre[0]) / camera.focal
    y = (v - camera.centre[1]) / camera.focal
    return x.astype(np.float32), y.astype(np.float32)


def crop_corner(camera: Camera, crop: int | None) -> tuple[int, int]:
    """First column and first row of the central ``crop`` x ``crop`` pixels."""
    if crop is None:
        return 0, 0
    return (camera.width - crop) // 2, (camera.height - crop) // 2


def centre_crop(image: NDArray[Any], camera: Camera, crop: int) -> NDArray[Any]:
    """The central ``crop`` x ``crop`` pixels of an image (H, W, ...), a view."""
    left, top = crop_corner(camera, crop)
    return image[top : top + crop, left : left + crop]


def project(
    points: NDArray[np.floating],
    camera: Camera,
    world_from_optical: Pose,
    pixel_centre: tuple[float, float],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The pixels nearest to points, in the image or beyond its edges: the inverse of `deproject`.

    Args:
        points: (M, 3) metres, world frame.
        camera: of the image.
        world_from_optical: its pose (4, 4).
        pixel_centre: the renderer's sample of a pixel, see `PIXEL_CENTRE`.

    Returns:
        Columns (M,), rows (M,), and distances (M,) along the optical axis in metres. The pixel of a
        point nearer than the camera's ``near`` means nothing.
    """
    x, y, distance = ((points - world_from_optical[:3, 3]) @ world_from_optical[:3, :3]).T
    z = np.maximum(distance, camera.near)
    u = np.round(camera.focal * x / z + camera.centre[0] - pixel_centre[0]).astype(np.intp)
    v = np.round(camera.focal * y / z + camera.centre[1] - pixel_centre[1]).astype(np.intp)
    return u, v, distance


def deproject(
    depth: NDArray[np.float32],
    camera: Camera,
    world_from_optical: Pose,
    pixel_centre: tuple[float, float],
    crop: int | None = None,
) -> NDArray[np.float32]:
    """Points of a depth image in the world frame.

    Args:
        depth: (H, W) float32, metres along the optical axis; with ``crop``, the central part.
        camera: of the image.
        world_from_optical: its pose (4, 4).
        pixel_centre: the renderer's sample of a pixel, see `PIXEL_CENTRE`.
        crop: side of the central part in ``depth``, or None for the whole image.

    Returns:
        (3, H, W) float32, metres: x, y and z of each pixel. Three planes rather than triples, and
        no matrix product, since this is faster and does not depend on a BLAS and its threads.
    """
    x, y = rays(camera, pixel_centre, crop)
    pose = world_from_optical.astype(np.float32)
    points = np.empty((3, *depth.shape), dtype=np.float32)
    for axis in range(3):
        of_rows = y * pose[axis, 1] + pose[axis, 2]
        np.add.outer(of_rows, x * pose[axis, 0], out=points[axis])
        points[axis] *= depth
        points[axis] += pose[axis, 3]
    return points
