"""A z-buffer rasteriser: compiled loops to draw the depth of meshlets, and each pixel's triangle.

A meshlet out of view, or one that turns its back, costs one test. numba compiles the loops at the
first use and caches them on disk, so the next process starts at once.

Example::

    meshlets = Meshlets.build([triangles_of_part_0, triangles_of_part_1])
    inverse_depth = np.full((height, width), 1 / far, np.float32)
    draw(inverse_depth, meshlets, optical_from_part, parts_to_draw, window)
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.compiled import compiled
from langsteer.envs.meshlets import MESHLET_TRIANGLES, Floats, Integers, Meshlets

Image = NDArray[np.float32]
Owners = NDArray[np.int32]

_NO_OWNERS = np.empty((0, 0), np.int32)
"""Stands for no image of owners; compiled loops take no None."""

# Edges count as inside by this much (in square pixels): no rounding opens a gap between
# neighbours.
_EDGE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Viewport:
    """A rectangle of an image, for the rasteriser.

    Attributes:
        focal: pixels.
        column, row: of the optical axis, counted in samples of the window.
        near, far: metres.
    """

    focal: float
    column: float
    row: float
    near: float
    far: float


def draw(
    inverse_depth: Image,
    meshlets: Meshlets,
    optical_from_part: Floats,
    visible: NDArray[np.bool_],
    window: Viewport,
    owner: Owners | None = None,
) -> None:
    """Draw parts into ``inverse_depth`` (H, W), 1 / metres, over its content.

    Args:
        inverse_depth: 1 / far at empty pixels.
        meshlets: of all parts.
        optical_from_part: (parts, 3, 4), each part's pose in the camera.
        visible: (parts,), a mask of the parts to draw.
        window: the camera.
        owner: (H, W) int32, gets the triangle of each pixel drawn; None draws depth alone.
    """
    _draw(
        inverse_depth,
        _NO_OWNERS if owner is None else owner,
        meshlets.part,
        meshlets.corners,
        meshlets.triangles,
        meshlets.first_corner,
        meshlets.first_triangle,
        meshlets.centre,
        meshlets.radius,
        meshlets.axis,
        meshlets.cutoff,
        optical_from_part,
        visible,
        window.focal,
        window.column,
        window.row,
        window.near,
        window.far,
    )


@compiled
def _draw(
    image: Image,
    owner: Owners,
    part: Integers,
    corners: Floats,
    triangles: Integers,
    first_corner: Integers,
    first_triangle: Integers,
    centre: Floats,
    radius: Floats,
    axis: Floats,
    cutoff: Floats,
    poses: Floats,
    visible: NDArray[np.bool_],
    focal: float,
    column: float,
    row: float,
    near: float,
    far: float,
) -> None:
    height, width = image.shape
    left, right = -column / focal, (width - 1 - column) / focal
    top, bottom = -row / focal, (height - 1 - row) / focal
    seen = np.empty((3, 3 * MESHLET_TRIANGLES))  # a meshlet's corners in the optical frame,
    projected = np.empty((3, 3 * MESHLET_TRIANGLES))  # their column, row and 1 / depth,
    cells = np.empty((2, 3 * MESHLET_TRIANGLES), np.int32)  # and column and row rounded down
    for m in range(len(part)):
        if not visible[part[m]]:
            continue
        pose = poses[part[m]]
        # One test drops a whole group out of view or facing away: most of them.
        if _is_culled(
            pose, centre[m], radius[m], axis[m], cutoff[m], left, right, top, bottom, near, far
        ):
            continue
        first, count = first_corner[m], first_corner[m + 1] - first_corner[m]
        # Corners are shared by triangles: project each once.
        nearest = _project(corners, first, count, pose, focal, column, row, near, seen, projected)
        for k in range(count):
            cells[0, k] = math.floor(projected[0, k])
            cells[1, k] = math.floor(projected[1, k])
        for t in range(first_triangle[m], first_triangle[m + 1]):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            # Behind the near plane a projection means nothing; such triangles are cut.
            if nearest < near and min(seen[2, a], seen[2, b], seen[2, c]) < near:
                _fill_clipped(image, owner, t, seen, a, b, c, focal, column, row, near)
                continue
            # Most triangles are smaller than a pixel and lie between the samples.
            if cells[0, a] == cells[0, b] and cells[0, a] == cells[0, c]:
                continue
            if cells[1, a] == cells[1, b] and cells[1, a] == cells[1, c]:
                continue
            _fill(image, owner, t, projected, a, b, c)


@compiled
def _is_culled(
    pose: Floats,
    centre: Floats,
    radius: float,
    axis: Floats,
    cutoff: float,
    left: float,
    right: float,
    top: float,
    bottom: float,
    near: float,
    far: float,
) -> bool:
    """Whether a meshlet lies out of view, or all of it turns its back.

    The view's sides are given as slopes x / z and y / z.
    """
    x, y, z = _moved(pose, 0, centre), _moved(pose, 1, centre), _moved(pose, 2, centre)
    if z + radius < near or z - radius > far:
        return True
    if x - left * z < -radius * math.sqrt(1 + left * left):
        return True
    if right * z - x < -radius * math.sqrt(1 + right * right):
        return True
    if y - top * z < -radius * math.sqrt(1 + top * top):
        return True
    if bottom * z - y < -radius * math.sqrt(1 + bottom * bottom):
        return True
    facing = x * (_moved(pose, 0, axis) - pose[0, 3])
    facing += y * (_moved(pose, 1, axis) - pose[1, 3])
    facing += z * (_moved(pose, 2, axis) - pose[2, 3])
    return facing >= cutoff * math.sqrt(x * x + y * y + z * z) + radius


@compiled
def _moved(pose: Floats, i: int, point: Floats) -> float:
    return pose[i, 0] * point[0] + pose[i, 1] * point[1] + pose[i, 2] * point[2] + pose[i, 3]


@compiled
def _project(
    corners: Floats,
    first: int,
    count: int,
    pose: Floats,
    focal: float,
    column: float,
    row: float,
    near: float,
    seen: Floats,
    projected: Floats,
) -> float:
    """Fill ``seen`` and ``projected`` for a meshlet's corners; returns the least depth.

    Corners before the near plane are projected from that plane, to be finite; they are not used.
    """
    nearest = math.inf
    for k in range(count):
        x, y, z = corners[0, first + k], corners[1, first + k], corners[2, first + k]
        seen[0, k] = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
        seen[1, k] = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
        seen[2, k] = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
        nearest = min(nearest, seen[2, k])
    for k in range(count):
        inverse = 1.0 / max(seen[2, k], near)
        projected[0, k] = focal * seen[0, k] * inverse + column
        projected[1, k] = focal * seen[1, k] * inverse + row
        projected[2, k] = inverse
    return nearest


@compiled
def _fill(
    image: Image, owner: Owners, triangle: int, corners: Floats, a: int, b: int, c: int
) -> None:
    """Draw a triangle of (column, row, 1 / depth) corners; one turning its back is left out.

    1 / depth is linear in the image. So are the three edges' functions: twice the area between the
    edge and the sample.
    """
    height, width = image.shape
    ax, ay, az = corners[0, a], corners[1, a], corners[2, a]
    bx, by, bz = corners[0, b], corners[1, b], corners[2, b]
    cx, cy, cz = corners[0, c], corners[1, c], corners[2, c]
    # Rows grow downwards, so the corners of a triangle that faces the camera go clockwise.
    area = (cx - ax) * (by - ay) - (bx - ax) * (cy - ay)
    if area <= 0.0:
        return
    along_column = ((cy - by) * az + (ay - cy) * bz + (by - ay) * cz) / area
    along_row = ((bx - cx) * az + (cx - ax) * bz + (ax - bx) * cz) / area
    first_column, last_column = max(0, math.ceil(min(ax, bx, cx))), math.floor(max(ax, bx, cx))
    first_row, last_row = max(0, math.ceil(min(ay, by, cy))), math.floor(max(ay, by, cy))
    for j in range(first_row, min(height - 1, last_row) + 1):
        for i in range(first_column, min(width - 1, last_column) + 1):
            if (
                (bx - ax) * (j - ay) - (by - ay) * (i - ax) > _EDGE_TOLERANCE
                or (cx - bx) * (j - by) - (cy - by) * (i - bx) > _EDGE_TOLERANCE
                or (ax - cx) * (j - cy) - (ay - cy) * (i - cx) > _EDGE_TOLERANCE
            ):
                continue
            value = np.float32(az + along_column * (i - ax) + along_row * (j - ay))
            if value > image[j, i]:
                image[j, i] = value
                if len(owner):
                    owner[j, i] = triangle


@compiled
def _fill_clipped(
    image: Image,
    owner: Owners,
    triangle: int,
    seen: Floats,
    a: int,
    b: int,
    c: int,
    focal: float,
    column: float,
    row: float,
    near: float,
) -> None:
    """Draw the part of a triangle beyond the near plane; its corners are in the optical frame."""
    corners = (a, b, c)
    kept = np.empty((3, 4))
    count = 0
    for k in range(3):
        one, other = corners[k], corners[(k + 1) % 3]
        if seen[2, one] >= near:
            kept[:, count] = seen[:, one]
            count += 1
        if (seen[2, one] >= near) != (seen[2, other] >= near):
            share = (near - seen[2, one]) / (seen[2, other] - seen[2, one])
            kept[:, count] = seen[:, one] + share * (seen[:, other] - seen[:, one])
            kept[2, count] = near
            count += 1
    for k in range(count):
        inverse = 1.0 / kept[2, k]
        kept[0, k] = focal * kept[0, k] * inverse + column
        kept[1, k] = focal * kept[1, k] * inverse + row
        kept[2, k] = inverse
    for k in range(1, count - 1):
        _fill(image, owner, triangle, kept, 0, k, k + 1)
