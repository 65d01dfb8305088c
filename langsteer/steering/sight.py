"""Places of things by the robot's own cameras: blocks by colour, drawer and door by depth.

The simulator gives its camera images and nothing else. A scene's description (`Layout`) tells the
mounts of its parts and the lengths of its blocks.

Example::

    look = Look.of(env.observe(cameras=CAMERAS), env.pipeline.pixel_centre)
    sight = Sight(layout, look)
    sight.block("red")      # (4,) xyz in metres and yaw in radians, or None where it is hidden
    sight.drawer()          # metres, or None
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import (
    GRIPPER_CAMERA,
    STATIC_CAMERA,
    Pose,
    deproject,
    project,
    rotation_from_euler,
)
from langsteer.calvin.kinematics import camera_pose_from_tcp
from langsteer.calvin.layout import (
    BAR_BACK,
    BAR_FRONT,
    BAR_HALF_LENGTH,
    BLOCK_WIDTH,
    HANDLE_HALF_WIDTH,
    Layout,
)
from langsteer.data.pointcloud import WORKSPACE
from langsteer.errors import UserError
from langsteer.steering.blocks import OccludedError
from langsteer.steering.boxes import faces, fit_box

Points = NDArray[np.float32]

CAMERAS = ("static", "gripper")
_HUES = {"red": 0.0, "blue": 240.0, "pink": 300.0}
"""Degrees. Light changes a colour's value, but neither hue nor saturation: the bounds hold for
every renderer and in every scene."""
_HUE_TOLERANCE, _LEAST_SATURATION, _LEAST_VALUE = 20.0, 0.8, 0.25
_LEAST_PIXELS = 12
"""Of a block: fewer do not tell its middle."""
_AROUND_MEDIAN = 0.09
_MOST_ERROR = 0.006
"""Root mean square metres between a block's points and its faces."""
_HAND_RADIUS, _BELOW_TCP = 0.075, 0.03
"""Metres around the hand's axis, and before its tcp. Points within them are the robot's own."""
_STEP, _NEAR_FACE = 0.002, 0.003
"""Metres between the joint values tried, and from a face to a point on it."""
_LEAST_ON_PART = 15
_PAST = 0.01
"""Metres behind a face from which on a camera sees past it."""


@dataclass(frozen=True)
class Look:
    """What both cameras show at a moment.

    Attributes:
        colour: camera to (H, W, 3) uint8.
        depth: camera to (H, W) float32, metres along its axis.
        robot_obs: (15,) with the hand's pose, and so the gripper camera's.
        pixel_centre: of the renderer (`calvin.cameras.PIXEL_CENTRE`).
    """

    colour: Mapping[str, NDArray[np.uint8]]
    depth: Mapping[str, NDArray[np.float32]]
    robot_obs: NDArray[np.float64]
    pixel_centre: tuple[float, float]

    @classmethod
    def of(cls, observation: Mapping[str, Any], pixel_centre: tuple[float, float]) -> "Look":
        """From ``CalvinEnv.observe(cameras=CAMERAS)``."""
        return cls(
            {name: observation["rgb_obs"][f"rgb_{name}"] for name in CAMERAS},
            {name: observation["depth_obs"][f"depth_{name}"] for name in CAMERAS},
            observation["robot_obs"],
            pixel_centre,
        )

    @cached_property
    def poses(self) -> dict[str, Pose]:
        """Camera to the pose (4, 4) of its optical frame in the world."""
        static = STATIC_CAMERA.world_from_optical()
        return {"static": static, "gripper": camera_pose_from_tcp(self.robot_obs)}

    def planes(self, camera: str) -> Points:
        """(3, H, W) metres, world frame: x, y and z of each pixel of a camera."""
        model = STATIC_CAMERA if camera == "static" else GRIPPER_CAMERA
        return deproject(self.depth[camera], model, self.poses[camera], self.pixel_centre)

    def exposed(
        self, camera: str, half_extents: tuple[float, float, float], place: NDArray[np.float64]
    ) -> float:
        """The share of a box's faces towards a camera that the camera sees past."""
        model = STATIC_CAMERA if camera == "static" else GRIPPER_CAMERA
        pose = self.poses[camera]
        points, normals = faces(place, half_extents)
        points = points[((points - pose[:3, 3]) * normals).sum(axis=1) < 0]
        u, v, z = project(points, model, pose, self.pixel_centre)
        within = (u >= 0) & (u < model.width) & (v >= 0) & (v < model.height) & (z > model.near)
        seen = self.depth[camera][v[within], u[within]]
        return float((seen > z[within] + _PAST).sum()) / len(points)

    def point_at(self, u: float, v: float) -> NDArray[np.float64]:
        """(3,) metres, world frame: what the static camera shows in a pixel.

        Args:
            u: column, from the left.
            v: row, from the top.

        Raises:
            UserError: there is no such pixel, or nothing near in it.
        """
        planes = self.planes("static")
        _, height, width = planes.shape
        if not (0 <= u < width and 0 <= v < height):
            raise UserError(
                f"steering.point=[{u:g},{v:g}]: the static camera has {width} x {height} pixels"
            )
        point: NDArray[np.float64] = planes[:, int(v), int(u)].astype(np.float64)
        if self.depth["static"][int(v), int(u)] >= STATIC_CAMERA.far:
            raise UserError(f"steering.point=[{u:g},{v:g}]: nothing is seen in that pixel")
        return point

    def seen_by(self, camera: str) -> tuple[Points, NDArray[np.float64]]:
        """Points (N, 3) of a camera in the workspace, and their hues (N,) in degrees.

        A hue is NaN if the colour is pale or dark.
        """
        points = self.planes(camera).reshape(3, -1).T
        low, high = np.array(WORKSPACE, dtype=np.float32).T
        inside = ((points >= low) & (points <= high)).all(axis=1)
        return points[inside], _hues(self.colour[camera].reshape(-1, 3)[inside])


class Sight:
    """The places of things at the moment of a look.

    Args:
        layout: of the scene.
        look: of both cameras.
    """

    def __init__(self, layout: Layout, look: Look) -> None:
        self.layout, self._look = layout, look
        self._seen = {name: look.seen_by(name) for name in CAMERAS}

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        """The blocks in sight; see `blocks.Scene`."""
        return tuple(f"block_{one}" for one in _HUES if self.block(one) is not None)

    def place(self, name: str) -> NDArray[np.float64]:
        """(4,) the place of a block; see `blocks.Scene`.

        Raises:
            OccludedError: neither camera sees enough of it.
        """
        found = self.block(name.removeprefix("block_"))
        if found is None:
            raise OccludedError(
                f"{name} is hidden from both cameras, so no steering can point at it; move what "
                "stands before it, or set steering.privileged=true to read its place from the "
                "simulator (results keep that)"
            )
        return found

    def block(self, colour: str) -> NDArray[np.float64] | None:
        """(4,) float64: xyz of a block's centre in metres and its yaw in radians.

        The camera with more of it in sight decides. None if neither sees enough.
        """
        views = [(self._coloured(name, colour), name) for name in CAMERAS]
        points, camera = max(views, key=lambda view: len(view[0]))
        if len(points) < _LEAST_PIXELS:
            return None
        return self._fitted(points, camera, self.layout.half_lengths[colour])

    def _coloured(self, camera: str, colour: str) -> Points:
        """(N, 3) the cluster of a block's colour in a camera's image."""
        points, hues = self._seen[camera]
        away = np.abs((hues - _HUES[colour] + 180) % 360 - 180)
        found = points[away <= _HUE_TOLERANCE]  # a NaN is not near
        if not len(found):
            return found
        gaps = np.linalg.norm(found - np.median(found, axis=0), axis=1)
        return found[gaps <= _AROUND_MEDIAN]

    def _fitted(
        self, points: Points, camera: str, half_length: float
    ) -> NDArray[np.float64] | None:
        away = points.mean(axis=0) - self._look.poses[camera][:3, 3]
        away /= np.linalg.norm(away)
        half = BLOCK_WIDTH / 2
        for extents in (half_length, half, half), (half, half, half_length):  # lying, on its end
            exposed = partial(self._look.exposed, camera, extents)
            place, error = fit_box(points, extents, away, exposed)
            if error <= _MOST_ERROR:
                return place
        return None

    def drawer(self) -> float | None:
        """Joint value of the drawer in metres, by its bar; None if the bar is hidden."""
        x, y, z = (self._without_hand - self.layout.bar(0.0)).T
        on_bar = (np.abs(x) < BAR_HALF_LENGTH) & (np.abs(z) < HANDLE_HALF_WIDTH)
        front = -y[on_bar] - (BAR_BACK - BAR_FRONT) / 2
        return _foremost(front, self.layout.drawer_range)

    def slider(self) -> float | None:
        """Joint value of the door in metres, by its handle; None if it is hidden."""
        x, y, z = (self._without_hand - self.layout.handle(0.0)).T
        on_front = (np.abs(y) < _NEAR_FACE) & (np.abs(z) < 2 * HANDLE_HALF_WIDTH)
        return _middle_of_handle(-x[on_front], self.layout.slider_range)

    @cached_property
    def _without_hand(self) -> Points:
        """(N, 3) what both cameras see but for the hand and what it holds."""
        points = np.concatenate([points for points, _ in self._seen.values()])
        away = points - self._look.robot_obs[:3]
        back = -rotation_from_euler(self._look.robot_obs[3:6])[:, 2]
        along = away @ back
        beside = np.linalg.norm(away - along[:, None] * back, axis=1)
        return points[(along < -_BELOW_TCP) | (beside > _HAND_RADIUS)]


def _foremost(values: NDArray[np.floating], most: float) -> float | None:
    """The largest joint value up to ``most`` with enough of the values (N,) near it."""
    tried = np.arange(0.0, most + _STEP, _STEP)
    counts = (np.abs(values[:, None] - tried) < _NEAR_FACE).sum(axis=0)
    if counts.max() < _LEAST_ON_PART:
        return None
    # Behind the bar come the drawer's own walls, before it nothing.
    foremost = tried[counts >= _LEAST_ON_PART][-1]
    return float(np.median(values[np.abs(values - foremost) < _NEAR_FACE]).clip(0.0, most))


def _middle_of_handle(values: NDArray[np.floating], most: float) -> float | None:
    """The middle, within 0 and ``most``, of a handle's width that most values (N,) are in."""
    tried = np.arange(0.0, most + _STEP, _STEP)
    counts = (np.abs(values[:, None] - tried) <= HANDLE_HALF_WIDTH).sum(axis=0)
    if counts.max() < _LEAST_ON_PART:
        return None
    # Several joint values may have all points in them; their middle is the handle's.
    return float(tried[counts == counts.max()].mean())


def _hues(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Hues (N,) in degrees of colours (N, 3); NaN if pale or dark."""
    red, green, blue = scaled = colours.T / 255.0
    value, chroma = scaled.max(axis=0), np.ptp(scaled, axis=0)
    vivid = (value >= _LEAST_VALUE) & (chroma >= _LEAST_SATURATION * value)
    sixths = np.select(
        [value == red, value == green],
        [(green - blue) / np.maximum(chroma, 1e-9), (blue - red) / np.maximum(chroma, 1e-9) + 2],
        (red - green) / np.maximum(chroma, 1e-9) + 4,
    )
    return np.where(vivid, 60.0 * sixths % 360, np.nan)
