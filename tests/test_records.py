"""The first wrong place of foreign plain values is named, whatever they are."""

from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.records import problem
from langsteer.settings import Natural


class Inner(TypedDict):
    steps: Natural
    seen: list[str]


class Outer(TypedDict):
    inner: Inner
    pair: tuple[int, str]
    table: NotRequired[dict[str, float]]
    maybe: dict[str, Any] | None


@dataclass
class Note:
    number: int
    windows: list[tuple[int, int]] = field(default_factory=list)


GOOD = {"inner": {"steps": 3, "seen": ["a"]}, "pair": [1, "b"], "maybe": None, "more": object()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"inner": {"steps": -1, "seen": []}}, "inner.steps=-1: expected a whole number from 0"),
        ({"inner": {"steps": 1, "seen": ["a", 2]}}, "inner.seen[1]=2: expected words"),
        ({"inner": {"steps": 1, "seen": ["\ud800"]}}, "inner.seen[0]="),
        ({"inner": {"steps": 1}}, "inner.seen is missing"),
        ({"inner": []}, "inner=[]: expected names and values"),
        ({"pair": [1]}, "pair=[1]: expected 2 values"),
        ({"pair": [1, 2]}, "pair[1]=2: expected words"),
        ({"table": {"a": float("nan")}}, "table.a=nan: expected a number"),
        ({"table": {"a": 10**400}}, "table.a="),
        ({"maybe": 5}, "maybe=5: expected"),
    ],
)
def test_the_first_wrong_place_is_named(change, message):
    found = problem({**GOOD, **change}, Outer)
    if message is None:
        assert found is None
    else:
        assert found is not None and found.startswith(message)


def test_plain_values_of_a_dataclass_may_lack_defaults_and_have_nothing_else():
    assert problem({"number": 1}, Note) is None
    assert problem({"number": 1, "windows": [[1, 2]]}, Note) is None
    assert problem({"number": 1, "other": 2}, Note) == "other is unknown"
    assert problem({"windows": []}, Note) == "number is missing"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([Outer, Inner, Note]))
def test_nothing_that_json_can_hold_is_an_error_of_ours(value, kind):
    found = problem(value, kind)
    assert found is None or len(found) < 500
