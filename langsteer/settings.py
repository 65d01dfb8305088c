"""Settings: frozen dataclasses with checked values, however they are made.

The type of a field is its check: a number or word, one of several words (`Literal`), a tuple, other
settings, and with `Annotated` a bound. Plain values come in by `from_dict`: an unknown key is an
error and names the nearest one.

Example::

    @dataclass(frozen=True)
    class Rollouts(Settings, prefix="rollouts."):
        count: Count
        device: Literal["auto", "cpu"] = "auto"

    Rollouts.from_dict({"count": 0})    # rollouts.count=0: expected a whole number from 1 on
"""

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from langsteer.errors import UserError

S = TypeVar("S", bound="Settings")
_UNIONS = (Union, UnionType)
_MOST_SHOWN = 200  # characters of a value in a message
_TOO_LONG = 10**100  # Python does not write numbers of any length
_SURROGATE = re.compile("[\ud800-\udfff]")  # no character: UTF-8 cannot write it


@dataclass(frozen=True)
class Bound:
    """A further condition on a value of the right type, and its wording in messages."""

    holds: Callable[[Any], bool]
    expected: str


def at_most(limit: int, least: int = 1) -> Bound:
    """A whole number up to a limit, beyond which a value is a mistake of a digit or more."""
    return Bound(lambda value: least <= value <= limit, f"a whole number from {least} to {limit}")


def one_of(*options: str) -> Bound:
    """One of several words."""
    return Bound(lambda value: value in options, f"one of {', '.join(options)}")


Count = Annotated[int, Bound(lambda value: value >= 1, "a whole number from 1 on")]
Natural = Annotated[int, Bound(lambda value: value >= 0, "a whole number from 0 on")]
Natural64 = Annotated[int, Bound(lambda value: 0 <= value < 2**62, "a whole number from 0 on")]
"""Of a file, which may hold any number: one that an int64 holds, and sums of two."""
Positive = Annotated[float, Bound(lambda value: value > 0, "a number above 0")]
NonNegative = Annotated[float, Bound(lambda value: value >= 0, "a number from 0 on")]
Portion = Annotated[float, Bound(lambda value: 0 <= value < 1, "a number from 0 on and below 1")]


class Settings:
    """Base of settings: a frozen dataclass; ``prefix`` begins the names of its keys in messages.

    Raises:
        UserError: a value has a wrong type, or is out of bounds.
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str = "") -> None:
        cls._prefix = prefix

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            value = _read(getattr(self, name), kind)
            object.__setattr__(self, name, value)
            self.require(is_of(value, kind), name, expected(kind))
        self.check()

    def check(self) -> None:
        """Raise `UserError` if values do not fit each other."""

    def require(self, holds: bool, name: str, expected: str) -> None:
        """Raise `UserError` with the key, its value and ``expected``, unless it ``holds``."""
        if not holds:
            raise UserError(
                f"{self._prefix}{name}={shown(getattr(self, name))}: expected {expected}"
            )

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, object]) -> S:
        """The settings of plain values.

        Raises:
            UserError: a key is unknown or missing, or a value is wrong.
        """
        known = kinds(cls)
        for key in values:
            if key not in known:
                hint = nearest(f"{cls._prefix}{key}", [f"{cls._prefix}{name}" for name in known])
                raise UserError(f"{cls._prefix}{key}: unknown key{hint}")
        # Here and below: this class is no dataclass, but all that are used are.
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name not in values and _has_no_default(field):
                raise UserError(f"{cls._prefix}{field.name}: missing")
        return cls(**{key: _made(value, known[key]) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, JSON and checkpoints: lists and no tuples."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {key: plain(value) for key, value in values.items()}


def kinds(cls: type) -> dict[str, Any]:
    """Name to type of a dataclass's fields, bounds included."""
    hints = type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@cache
def type_hints(cls: type) -> dict[str, Any]:
    """Name to type of a class's annotations, bounds included."""
    return get_type_hints(cls, include_extras=True)


def nearest(word: str, choices: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the choice closest to ``word``, or nothing.

    The last parts of dotted names are compared if the whole is like none.
    """
    by_last = {choice.rsplit(".", 1)[-1]: choice for choice in choices}
    close = difflib.get_close_matches(word, by_last.values(), n=1, cutoff=0.7)
    if not close:
        last = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(by_last), n=1, cutoff=0.7)
        close = [by_last[item] for item in last]
    return f"; did you mean {close[0]}?" if close else ""


def _made(value: Any, kind: Any) -> Any:  # noqa: ANN401 - plain values
    """Nested settings of a mapping; any other value as it is, to be checked with the rest."""
    if isinstance(kind, type) and issubclass(kind, Settings) and isinstance(value, Mapping):
        return kind.from_dict(value)
    return value


def _read(value: Any, kind: Any) -> Any:  # noqa: ANN401 - plain values
    """A value as YAML and a command line mean it."""
    many = any(get_origin(option) is tuple for option in (kind, *get_args(kind)))
    if many and isinstance(value, str | list):  # they know lists only, and one name may stand alone
        return (value,) if isinstance(value, str) else tuple(value)
    is_short = type(value) is int and abs(value) < _TOO_LONG
    if is_short and is_of(str(value), kind) and not is_of(value, kind):
        return str(value)  # a name of digits, e.g. the folder 20260213
    return value


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def plain(value: Any) -> Any:  # noqa: ANN401 - plain values
    """Tuples as lists, all the way down, as JSON returns them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def shown(value: Any) -> str:  # noqa: ANN401 - plain values
    """As a user would type it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, int) and abs(value) >= _TOO_LONG:
        return f"a number of {value.bit_length()} bits"
    many = isinstance(value, tuple | list)
    text = f"[{','.join(map(shown, value))}]" if many else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "words",
    NoneType: "null",
}


def is_of(value: Any, kind: Any) -> bool:  # noqa: ANN401 - plain values
    """Whether a value is of a type and within its bounds."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner, bound = arguments
        return is_of(value, inner) and bound.holds(value)
    if origin in _UNIONS:
        return any(is_of(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _fit(value, arguments)
    if kind is float:  # a whole number is one, too; true and false are none
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if kind is Any:
        return True
    if kind is str:
        return type(value) is str and not _SURROGATE.search(value)
    return type(value) is kind


def _fit(values: tuple[Any, ...], arguments: Sequence[Any]) -> bool:
    """Whether values are those of ``tuple[X, ...]`` or ``tuple[X, Y]``."""
    if arguments[-1] is Ellipsis:
        return all(is_of(value, arguments[0]) for value in values)
    return len(values) == len(arguments) and all(map(is_of, values, arguments))


def expected(kind: Any) -> str:  # noqa: ANN401 - a type
    """What is wanted, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return str(arguments[1].expected)
    if origin in _UNIONS:
        return " or ".join(expected(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(arguments)}" if len(arguments) > 1 else str(arguments[0])
    if origin is tuple:
        many = arguments[-1] is Ellipsis
        return f"a list, each item {expected(arguments[0])}" if many else f"{len(arguments)} values"
    return _WORDS.get(kind, "keys and values")
