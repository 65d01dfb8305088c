"""Exact farthest point sampling: compiled loops over a small k-d tree.

Each step takes the point farthest from all points taken so far. A new point changes the distances
of its neighbours only. So the points lie in the leaves of a tree; each leaf knows its box and its
largest distance, and a step looks into the few leaves near the new point (Han et al., "QuickFPS",
TCAD 2023).

The result is a function of the points. The tree puts them in an order; the first point in this
order starts, and of equally far points the first is taken. Stored clouds depend on this order; it
must never change. Distances are float32 sums in a fixed order without fused multiply-adds, so every
processor gives the same points.

Example::

    farthest_points(np.random.rand(25_000, 3).astype(np.float32), 1024)  # (1024,) indices
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.compiled import compiled

Floats = NDArray[np.float32]
Integers = NDArray[np.integer]
Corner = tuple[np.float32, np.float32, np.float32]

TREE_HEIGHT = 6
"""At most 2^6 leaves: fastest for the 3 000 to 25 000 points of an image, and part of the order."""

_MOST = np.finfo(np.float32).max


def farthest_points(points: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    """Indices (K,) of a farthest point sample of ``points`` (M, 3), with 1 ≤ K = count ≤ M.

    Distances are float32, whatever type of float the points have.

    The points must have no NaN: such a point has no distance to any other, and would be taken again
    and again.
    """
    height = min(TREE_HEIGHT, len(points).bit_length() - 1)
    x, y, z = np.ascontiguousarray(points.T, dtype=np.float32)
    indices = np.arange(len(points))
    first = _build_tree(x, y, z, indices, height)
    return indices[_sample(x, y, z, first, count)]


@compiled
def _build_tree(x: Floats, y: Floats, z: Floats, indices: Integers, height: int) -> Integers:
    """Put points in the order of a k-d tree, in place; returns each leaf's begin, and the end.

    A node falls into two at the mean of its longest side, down to ``height`` or to one point.
    """
    first = np.zeros(2, np.intp)
    # Level by level: every node falls into two, so a leaf's points lie side by side.
    first[1] = len(x)
    for _ in range(height):
        below = np.empty(2 * len(first) - 1, np.intp)
        nodes = 0
        for node in range(len(first) - 1):
            start, end = first[node], first[node + 1]
            below[nodes] = start
            nodes += 1
            if end - start > 1:
                middle = _split(x[start:end], y[start:end], z[start:end], indices[start:end])
                below[nodes] = start + middle
                nodes += 1
        below[nodes] = len(x)
        first = below[: nodes + 1]
    return first


@compiled
def _split(x: Floats, y: Floats, z: Floats, indices: Integers) -> int:
    """Put a node's points below the mean of its longest side first; returns the others' begin.

    Neither part is empty, even if all points are below the rounded mean, or none is.
    """
    count = len(x)
    low, high = _box(x, y, z)
    along, longest = x, max(np.float32(0), high[0] - low[0])
    if high[1] - low[1] > longest:
        along, longest = y, high[1] - low[1]
    if high[2] - low[2] > longest:
        along = z
    mean = _mean(along)
    left, right = 0, count - 1
    while True:
        while left <= right and along[left] < mean:
            left += 1
        while left <= right and along[right] >= mean:
            right -= 1
        if left > right:
            return min(max(left, 1), count - 1)
        x[left], x[right] = x[right], x[left]
        y[left], y[right] = y[right], y[left]
        z[left], z[right] = z[right], z[left]
        indices[left], indices[right] = indices[right], indices[left]
        left += 1
        right -= 1


@compiled
def _box(x: Floats, y: Floats, z: Floats) -> tuple[Corner, Corner]:
    """The least and the greatest coordinates; a NaN is neither."""
    x0 = y0 = z0 = np.float32(_MOST)
    x1 = y1 = z1 = np.float32(-_MOST)
    for i in range(len(x)):
        x0 = x[i] if x[i] < x0 else x0
        y0 = y[i] if y[i] < y0 else y0
        z0 = z[i] if z[i] < z0 else z0
        x1 = x[i] if x[i] > x1 else x1
        y1 = y[i] if y[i] > y1 else y1
        z1 = z[i] if z[i] > z1 else z1
    return (x0, y0, z0), (x1, y1, z1)


@compiled
def _mean(values: Floats) -> np.float32:
    """The mean by float32 sums from the first to the last: the order depends on it."""
    total = np.float32(0)
    for i in range(len(values)):
        total += values[i]
    return total / np.float32(len(values))


@compiled
def _sample(x: Floats, y: Floats, z: Floats, first: Integers, count: int) -> Integers:
    """Places (K,) in the tree's order of a sample that starts with the first point."""
    leaves = len(first) - 1
    low, high = np.empty((3, leaves), np.float32), np.empty((3, leaves), np.float32)
    for leaf in range(leaves):
        start, end = first[leaf], first[leaf + 1]
        corner, opposite = _box(x[start:end], y[start:end], z[start:end])
        for axis in range(3):
            low[axis, leaf], high[axis, leaf] = corner[axis], opposite[axis]
    # Squared distances of each point, and the largest in each leaf. None is negative, so their
    # bits as integers have the same order, and maxima of integers run many at a time.
    distance = np.full(len(x), _MOST, np.float32)
    largest = np.full(leaves, _MOST, np.float32)
    distance_bits, largest_bits = distance.view(np.int32), largest.view(np.int32)
    near = np.empty(leaves, np.bool_)
    chosen = np.zeros(count, np.intp)
    for taken in range(1, count + 1):
        # Bring the leaves up to date for the point taken last.
        place = chosen[taken - 1]
        point = (x[place], y[place], z[place])
        _mark_near(near, low, high, largest, point)
        for leaf in range(leaves):
            if near[leaf]:
                start, end = first[leaf], first[leaf + 1]
                _shrink(distance, x, y, z, start, end, point)
                largest_bits[leaf] = _maximum(distance_bits, start, end)
        # Then take the first of the farthest points: in the tree's order, so that ties are settled.
        if taken < count:
            farthest = _maximum(largest_bits, 0, leaves)
            leaf = 0
            while largest_bits[leaf] != farthest:
                leaf += 1
            place = first[leaf]
            while distance_bits[place] != farthest:
                place += 1
            chosen[taken] = place
    return chosen


@compiled
def _mark_near(
    near: NDArray[np.bool_],
    low: Floats,
    high: Floats,
    largest: Floats,
    point: Corner,
) -> None:
    """Mark each leaf with a box nearer to ``point`` than its farthest point is to the sample.

    In other leaves no point comes nearer to the sample: rounding is monotonic, and the sums have
    the same order as in `_shrink`.
    """
    zero = np.float32(0)
    for leaf in range(len(near)):
        dx = max(max(low[0, leaf] - point[0], point[0] - high[0, leaf]), zero)
        dy = max(max(low[1, leaf] - point[1], point[1] - high[1, leaf]), zero)
        dz = max(max(low[2, leaf] - point[2], point[2] - high[2, leaf]), zero)
        near[leaf] = dx * dx + dy * dy + dz * dz < largest[leaf]


@compiled
def _shrink(
    distance: Floats, x: Floats, y: Floats, z: Floats, start: int, end: int, point: Corner
) -> None:
    """Lower a leaf's squared distances to those from ``point`` if these are less."""
    distance, x, y, z = distance[start:end], x[start:end], y[start:end], z[start:end]
    for i in range(len(distance)):
        dx, dy, dz = x[i] - point[0], y[i] - point[1], z[i] - point[2]
        new = dx * dx + dy * dy + dz * dz
        distance[i] = new if new < distance[i] else distance[i]


@compiled
def _maximum(values: NDArray[np.int32], start: int, end: int) -> np.int32:
    values = values[start:end]
    largest = values[0]
    for i in range(len(values)):  # an iterator of values would run one at a time
        largest = max(largest, values[i])
    return largest
