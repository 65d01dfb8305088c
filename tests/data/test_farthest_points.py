"""The compiled sampler takes the points that its plain description takes, in the same order."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from langsteer.data.farthest_points import TREE_HEIGHT, farthest_points

MOST = np.finfo(np.float32).max


def plain_order(points: np.ndarray, order: list[int], height: int) -> list[int]:
    """Indices in the order of the tree: a node falls into two at the mean of its longest side."""
    if height == 0 or len(order) == 1:
        return order
    here = points[order]
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.fmax.reduce(here, initial=-MOST) - np.fmin.reduce(here, initial=MOST)
        # All sides of coinciding points are 0, and the first counts.
        values = here[:, np.argmax(np.fmax(sides, 0))]
        mean = np.add.accumulate(values)[-1] / np.float32(len(values))
    order, left, right = list(order), 0, len(order) - 1
    while left <= right:
        if values[left] < mean:
            left += 1
        elif values[right] >= mean:
            right -= 1
        else:
            order[left], order[right] = order[right], order[left]
            values[[left, right]] = values[[right, left]]
            left, right = left + 1, right - 1
    middle = min(max(left, 1), len(order) - 1)
    below, above = order[:middle], order[middle:]
    return plain_order(points, below, height - 1) + plain_order(points, above, height - 1)


def plain_sample(points: np.ndarray, count: int) -> np.ndarray:
    height = min(TREE_HEIGHT, len(points).bit_length() - 1)
    order = np.array(plain_order(points, list(range(len(points))), height))
    ordered = points[order]
    nearest = np.full(len(points), MOST)
    chosen = [0]
    for _ in range(count - 1):
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            squares = (ordered - ordered[chosen[-1]]) ** 2
            distance = squares[:, 0] + squares[:, 1] + squares[:, 2]
        nearest = np.where(distance < nearest, distance, nearest)
        chosen.append(int(np.argmax(nearest)))
    return order[chosen]


def wave(rows: int, columns: int) -> np.ndarray:
    """A grid of points at equal distances, so that many are equally far."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([row, column, row * column % 7], axis=1).astype(np.float32) / np.float32(8)


@given(st.integers(2, 700), st.data())
def test_random_clouds_give_the_plain_sample(size, data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    points = np.random.default_rng(seed).normal(size=(size, 3)).astype(np.float32)
    count = data.draw(st.integers(1, size))
    np.testing.assert_array_equal(farthest_points(points, count), plain_sample(points, count))


@given(st.integers(2, 300), st.data())
def test_equally_far_and_coinciding_points_are_taken_in_the_plain_order(size, data):
    coordinates = st.integers(0, 3).map(np.float32)
    points = data.draw(arrays(np.float32, (size, 3), elements=coordinates, fill=coordinates))
    count = data.draw(st.integers(1, size))
    np.testing.assert_array_equal(farthest_points(points, count), plain_sample(points, count))


@given(st.integers(2, 100), st.data())
def test_a_nan_an_infinity_or_a_huge_number_gives_the_plain_sample(size, data):
    odd = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf]).map(np.float32)
    points = data.draw(arrays(np.float32, (size, 3), elements=odd, fill=odd))
    count = data.draw(st.integers(1, size))
    np.testing.assert_array_equal(farthest_points(points, count), plain_sample(points, count))


# The order that stored clouds have: what fpsample 0.3.3's bucket_fps_kdline_sampling gave for
# them (height 6, start_idx 0).
STORED_ORDER = [
    (wave(30, 40), [0, 1199, 31, 1166, 703, 568, 519, 97, 1181, 872, 880, 428, 855, 248, 118, 521]),
    (np.tile(wave(5, 6), (3, 1)), [0, 59, 53, 55, 54, 40, 34, 8, 15, 86, 44, 27, 32, 12, 51, 47]),
    (np.zeros((9, 3), np.float32), [0, 0, 0, 0, 0]),
]
IMAGE_ORDER = "dbe70281e34bad56a146cb32fd75203cf52c20b838056e29d295aeb89ade628c"


@pytest.mark.parametrize(("points", "expected"), STORED_ORDER)
def test_the_order_of_stored_clouds_stays(points, expected):
    assert farthest_points(points, len(expected)).tolist() == expected


def test_the_order_of_an_image_of_points_stays():
    chosen = farthest_points(wave(150, 140), 1024).astype("<i8")
    assert hashlib.sha256(chosen.tobytes()).hexdigest() == IMAGE_ORDER


def test_points_are_left_as_they_are_and_may_have_any_layout():
    points = wave(30, 40)
    before = points.copy()
    chosen = farthest_points(points, 50)
    np.testing.assert_array_equal(points, before)
    every_second = np.repeat(points, 2, axis=0)[::2]
    for other in (np.asfortranarray(points), points.astype(np.float64), every_second):
        np.testing.assert_array_equal(farthest_points(other, 50), chosen)
