"""Check plain values out of foreign files against types.

The type says it: what `langsteer.settings` knows, and besides ``list[X]``, ``dict[str, X]``,
the fields of a dataclass, and typed dictionaries, whose further keys do not matter.

Example::

    class Episode(TypedDict):
        steps: Natural
        success: bool

    problem({"steps": -1, "success": True}, Episode)    # "steps=-1: expected a whole number from 0"
"""

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, is_typeddict

from langsteer.settings import Bound, expected, is_of, type_hints

_MOST_SHOWN = 200
"""Characters of a value in a message; each level of a nested one may take some dozens."""


def problem(value: Any, kind: Any, name: str = "") -> str | None:  # noqa: ANN401 - plain values
    """The first place with a value of another kind, in words; None if all is well.

    Args:
        value: plain, e.g. of JSON.
        kind: a type, bounds included.
        name: of the value; those of its parts are dotted.
    """
    return next(_problems(value, kind, name), None)


def _problems(value: Any, kind: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - plain values
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        options = [list(_problems(value, option, name)) for option in arguments]
        if all(options):  # the longest is of the option that fits best: it got furthest inside
            yield max((found[0] for found in options), key=lambda text: text.count("."))
    elif origin is Annotated and get_origin(arguments[0]) in (list, dict):
        yield from _problems(value, arguments[0], name)
        bound: Bound = arguments[1]
        if isinstance(value, get_origin(arguments[0])) and not bound.holds(value):
            yield _wrong(value, bound.expected, name)
    elif is_typeddict(kind) or dataclasses.is_dataclass(kind):
        yield from _of_fields(value, kind, name)
    elif origin is list:
        if not isinstance(value, list):
            yield _wrong(value, "a list", name)
        else:
            for place, item in enumerate(value):
                yield from _problems(item, arguments[0], f"{name}[{place}]")
    elif origin is tuple and isinstance(value, list):  # as JSON has it
        many = arguments[-1] is Ellipsis
        wanted = [arguments[0]] * len(value) if many else list(arguments)
        if len(wanted) != len(value):
            yield _wrong(value, f"{len(wanted)} values", name)
        for place, (item, inner) in enumerate(zip(value, wanted, strict=False)):
            yield from _problems(item, inner, f"{name}[{place}]")
    elif origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            yield _wrong(value, "names and values", name)
        else:
            for key, item in value.items():
                yield from _problems(item, arguments[1], _below(name, key))
    elif not is_of(value, kind):
        yield _wrong(value, expected(kind), name)


def _of_fields(value: Any, kind: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - plain values
    """Problems of a typed dictionary, or of the plain values of a dataclass."""
    if not isinstance(value, Mapping):
        yield _wrong(value, "names and values", name)
        return
    defaults, hints = _with_defaults(kind), type_hints(kind)
    for key, inner in hints.items():
        optional = get_origin(inner) is NotRequired or key in defaults
        if key in value:
            found = get_args(inner)[0] if get_origin(inner) is NotRequired else inner
            yield from _problems(value[key], found, _below(name, key))
        elif not optional:
            yield f"{_below(name, key)} is missing"
    if not is_typeddict(kind):
        unknown = sorted(map(str, value.keys() - hints.keys()))
        yield from (f"{_below(name, key)} is unknown" for key in unknown)


def _with_defaults(kind: Any) -> set[str]:  # noqa: ANN401 - a type
    """Names the plain values of a dataclass may lack."""
    if not dataclasses.is_dataclass(kind):
        return set()
    missing = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is not missing or field.default_factory is not missing
    }


def _below(name: str, key: str) -> str:
    return f"{name}.{key:.100}" if name else f"{key:.100}"


def _wrong(value: Any, wanted: str, name: str) -> str:  # noqa: ANN401 - plain values
    return f"{name or 'its content'}={reprlib.repr(value)[:_MOST_SHOWN]}: expected {wanted}"
