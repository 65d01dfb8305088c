"""Fit a box of known size to the points a camera sees of it.

Example::

    place, error = fit_box(points, (0.028, 0.02, 0.02), away, exposed)
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_YAWS = np.linspace(0, np.pi, 6, endpoint=False)
_ITERATIONS = 8
_DAMPING = 2e-3
"""Holds still what the points leave open, such as the far end of a face that is half hidden."""
_LEVER = 0.03
"""Metres that a radian of yaw counts like."""
_MOST_POINTS = 100
_ALIKE = 5e-4
"""Boxes fit alike if their errors differ by at most so many metres."""
_SHIFTS = (0.0, -0.15, 0.15, -0.3, 0.3, -0.45, 0.45)
"""Shifts to try along a box's length, in half lengths."""


def fit_box(
    points: NDArray[np.floating],
    half_extents: tuple[float, float, float],
    away: Array,
    exposed: Callable[[Array], float],
) -> tuple[Array, float]:
    """The level box whose surface the points lie on, by least squares from six yaws.

    Minimises sum_i sd(p_i)^2 over centre and yaw, where sd is the signed distance to the box
    (Quilez, "distance functions"), by damped Gauss-Newton steps (Levenberg 1944). Several boxes may
    fit the points of a half-hidden one equally well. The camera cannot see through a box, so the
    box with the least of its faces seen through is taken.

    Args:
        points: (N, 3) metres, world frame.
        half_extents: of the box along its own axes, metres.
        away: (3,) unit vector from the camera to the points: the box lies behind its visible faces.
        exposed: from a place (4,) to the share of the box's faces nearer than what the camera sees.

    Returns:
        (4,) xyz in metres and yaw in radians; root mean square distance in metres.
    """
    sampled = points[:: 1 + len(points) // _MOST_POINTS].astype(np.float64)
    half = np.array(half_extents)
    begin = sampled.mean(axis=0) + away * half[1] * 0.8
    state = np.column_stack([np.tile(begin, (len(_YAWS), 1)), _YAWS])
    for _ in range(_ITERATIONS):
        distances, slopes = _distances(sampled, state, half)
        normal = np.einsum("hni,hnj->hij", slopes, slopes) / len(sampled)
        right = np.einsum("hni,hn->hi", slopes, distances) / len(sampled)
        damping = _DAMPING * np.diag([1.0, 1.0, 1.0, _LEVER**2])
        state = state - np.linalg.solve(normal + damping, right[..., None])[..., 0]
    # What is hidden of the length is at one end or at the other.
    length = np.column_stack([np.cos(state[:, 3]), np.sin(state[:, 3]), np.zeros((len(state), 2))])
    state = np.concatenate([state + shift * half[0] * length for shift in _SHIFTS])
    errors = np.sqrt((_distances(sampled, state, half)[0] ** 2).mean(axis=1))
    alike = np.flatnonzero(errors <= errors.min() + _ALIKE)
    best = min(alike, key=lambda index: exposed(state[index]))
    return state[best], float(errors[best])


def faces(place: Array, half_extents: tuple[float, float, float]) -> tuple[Array, Array]:
    """Points (N, 3) spread over a box's six faces, and their outward normals (N, 3)."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 5)] * 2), axis=-1).reshape(-1, 2)
    points, normals = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = sign * np.eye(3)[axis]
            points.append(np.insert(grid, axis, sign, axis=1))
            normals.append(np.tile(normal, (len(grid), 1)))
    cosine, sine = np.cos(place[3]), np.sin(place[3])
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    spread = np.concatenate(points) * half_extents
    return spread @ turn.T + place[:3], np.concatenate(normals) @ turn.T


def _distances(points: Array, state: Array, half: Array) -> tuple[Array, Array]:
    """Signed distances (H, N) of points to boxes (H, 4), and their slopes (H, N, 4)."""
    cosine, sine = np.cos(state[:, 3:]), np.sin(state[:, 3:])
    x, y, z = np.moveaxis(points[None] - state[:, None, :3], -1, 0)
    local = np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=-1)
    beyond = np.abs(local) - half
    outside = np.maximum(beyond, 0)
    gap = np.linalg.norm(outside, axis=-1)
    inner = beyond.max(axis=-1)
    # Outside, the slope points away from the box's nearest point; inside, through its nearest face.
    through = np.eye(3)[beyond.argmax(axis=-1)]
    normal = np.where(
        (gap > 0)[..., None], outside / np.maximum(gap, 1e-12)[..., None], through
    ) * np.sign(local)
    turned = normal[..., 0] * local[..., 1] - normal[..., 1] * local[..., 0]
    along_x = cosine * normal[..., 0] - sine * normal[..., 1]
    along_y = sine * normal[..., 0] + cosine * normal[..., 1]
    slopes = np.stack([-along_x, -along_y, -normal[..., 2], turned], axis=-1)
    return np.where(gap > 0, gap, inner), slopes
