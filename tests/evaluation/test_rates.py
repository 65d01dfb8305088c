"""Rates and their intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.evaluation.rates import Rate


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
