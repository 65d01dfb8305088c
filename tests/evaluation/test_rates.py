"""Rates and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.evaluation.rates import Rate, mean_interval


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_rate_and_stays_within_zero_and_one(counts):
    rate = Rate(*counts)
    low, high = rate.interval
    assert 0 <= low <= rate.value + 1e-12
    assert rate.value - 1e-12 <= high <= 1


def test_interval_equals_published_wilson_values():
    # Brown, Cai and DasGupta (2001) style check: 9 of 10 and 0 of 10.
    assert Rate(9, 10).interval == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert Rate(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_no_attempts_say_nothing():
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert str(Rate(0, 0)) == "no attempts"


@given(st.lists(st.sampled_from([0, 5]), min_size=1))
def test_the_mean_of_all_or_nothing_has_the_interval_of_its_rate(values):
    low, high = Rate(values.count(5), len(values)).interval
    assert mean_interval(values, 5) == pytest.approx((5 * low, 5 * high), abs=1e-9)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_the_interval_of_a_mean_holds_it_and_is_never_a_point(values):
    low, high = mean_interval(values, 5)
    assert 0 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 5
    assert low < high


def test_with_many_values_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).integers(0, 6, 1000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    expected = values.mean() - half, values.mean() + half
    assert mean_interval(list(values), 5) == pytest.approx(expected, abs=0.01)
