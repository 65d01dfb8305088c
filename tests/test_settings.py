"""Settings: checked however they are made, and each message names the key and what is expected."""

from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.errors import UserError
from langsteer.settings import Count, Portion, Positive, Settings, nearest, one_of


@dataclass(frozen=True)
class Inner(Settings, prefix="outer.inner."):
    scene: str = "builtin"


@dataclass(frozen=True)
class Outer(Settings, prefix="outer."):
    count: Count
    rate: Positive | None = None
    part: Portion = 0.5
    tasks: tuple[str, ...] = ("a",)
    some: tuple[Count, ...] | None = None
    pair: tuple[float, float] = (0.5, 0.25)
    device: Literal["auto", "cpu"] = "auto"
    word: Annotated[str, one_of("red", "blue")] = "red"
    when: bool | Literal["auto"] = "auto"
    folder: str | None = None
    inner: Inner = Inner()

    def check(self) -> None:
        self.require(self.count != 13, "count", "a lucky number")


@given(
    st.builds(
        Outer,
        count=st.integers(14, 99),
        rate=st.none() | st.floats(0.1, 9),
        tasks=st.lists(st.text()).map(tuple),
        some=st.none() | st.lists(st.integers(1, 9)).map(tuple),
        when=st.booleans() | st.just("auto"),
        inner=st.builds(Inner, scene=st.text()),
    )
)
def test_settings_come_back_from_their_plain_values(settings):
    values = settings.to_dict()
    assert Outer.from_dict(values) == settings
    assert "tuple" not in {type(value).__name__ for value in values.values()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "outer.count=0: expected a whole number from 1 on"),
        ({"count": True}, "outer.count=true: expected a whole number"),
        ({"count": 1.0}, "outer.count=1.0: expected a whole number"),
        ({"count": 13}, "outer.count=13: expected a lucky number"),
        ({}, "outer.count: missing"),
        ({"count": 1, "rate": float("nan")}, "outer.rate=nan: expected a number above 0 or null"),
        ({"count": 1, "rate": float("inf")}, "outer.rate=inf"),
        ({"count": 1, "part": 1}, "outer.part=1: expected a number from 0 on and below 1"),
        ({"count": 1, "tasks": None}, "outer.tasks=null: expected a list, each item words"),
        ({"count": 1, "some": [1, 0]}, "outer.some=[1,0]: expected a list, each item a whole"),
        ({"count": 1, "pair": [1]}, "outer.pair=[1]: expected 2 values"),
        ({"count": 1, "device": "tpu"}, "outer.device=tpu: expected one of auto, cpu"),
        ({"count": 1, "word": "green"}, "outer.word=green: expected one of red, blue"),
        ({"count": 1, "when": "never"}, "outer.when=never: expected true or false or auto"),
        ({"count": 1, "inner": {"scene": None}}, "outer.inner.scene=null: expected words"),
        ({"count": 1, "inner": 5}, "outer.inner=5: expected keys and values"),
        ({"count": 1, "inner": {"scnee": "A"}}, "did you mean outer.inner.scene?"),
        ({"cuont": 1}, "outer.cuont: unknown key; did you mean outer.count?"),
    ],
)
def test_a_wrong_value_or_key_is_an_error_that_says_what_is_expected(values, message):
    with pytest.raises(UserError) as error:
        Outer.from_dict(values)
    assert message in str(error.value)


def test_values_are_read_as_yaml_and_a_command_line_mean_them():
    read = Outer.from_dict({"count": 1, "tasks": "open", "some": [1], "folder": 20260213})
    assert read == Outer(1, tasks=("open",), some=(1,), folder="20260213")
    assert Outer.from_dict({"count": 1, "pair": [1, 2]}).pair == (1, 2)


def test_settings_are_checked_however_they_are_made_and_never_change():
    settings = Outer(1)
    for make in (lambda: Outer(0), lambda: replace(settings, count=0)):
        with pytest.raises(UserError):
            make()
    with pytest.raises(FrozenInstanceError):
        settings.count = 2  # type: ignore[misc]  # what mypy refuses is refused at run time too


def test_the_nearest_key_is_named_by_its_whole_name_or_its_last_part():
    keys = ["training.batch_size", "training.wandb.enabled"]
    assert nearest("batch_size", keys) == "; did you mean training.batch_size?"
    assert nearest("training.batchsize", keys) == "; did you mean training.batch_size?"
    assert nearest("colour", keys) == ""
