"""Nested settings under dotted names, to compare two of them.

Example::

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    >>> differences({"a": {"b": 1}}, {"a": {"b": 2}}, "{name}: {one} there, {other} now")
    'a.b: 1 there, 2 now'
"""

from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """All values but mappings, under their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(
    one: Mapping[str, object], other: Mapping[str, object], line: str, ignored: str = "\0"
) -> str:
    """A line for each name with different values, in order; a missing value is None.

    Args:
        one, other: nested settings.
        line: a format of ``name`` and both values, ``"{name}: {one} there, {other} now"``.
        ignored: names with this beginning do not count.
    """
    ours, theirs = flatten(one), flatten(other)
    return "\n".join(
        line.format(name=name, one=ours.get(name), other=theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and not name.startswith(ignored)
    )
