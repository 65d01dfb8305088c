"""Damage that hypothesis draws, to bytes and to trees of plain values; for test_fuzz."""

import copy
from typing import Any

from hypothesis import strategies as st


@st.composite
def mutation(draw):
    """A change of bytes: bits flipped, a part cut, repeated, replaced or moved."""
    kind = draw(st.sampled_from(["flip", "cut", "truncate", "insert", "repeat", "zero"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    extra = draw(st.binary(min_size=1, max_size=12))
    length = draw(st.integers(1, 64))

    def change(content: bytes) -> bytes:
        data = bytearray(content)
        for place in places:
            at = int(place * len(data))
            if kind == "flip" and data:
                data[at] ^= 1 << (length % 8)
            elif kind == "cut":
                del data[at : at + length]
            elif kind == "truncate":
                del data[at:]
            elif kind == "insert":
                data[at:at] = extra
            elif kind == "repeat":
                data[at:at] = data[at : at + length]
            elif kind == "zero":
                data[at : at + length] = bytes(len(data[at : at + length]))
        return bytes(data)

    return change


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**12, 10**22, 10**400, -(10**30)]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "\ud800", "\x00", "../../x", "${training.seed}", "a" * 5000, "NaN", "[["]),
    st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.just([[[[[[[[[]]]]]]]]]),
)


def leaves(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to all values of a tree, branches included."""
    found = [path] if path else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += leaves(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree[:3]):
            found += leaves(value, (*path, place))
    return found


def changed(tree: Any, place: float, value: object, delete: bool) -> Any:
    """A copy of a tree with one value replaced or deleted."""
    tree = copy.deepcopy(tree)
    paths = leaves(tree)
    *way, last = paths[int(place * len(paths))]
    node = tree
    for key in way:
        node = node[key]
    if delete:
        del node[last]
    else:
        node[last] = value
    return tree


tree_change = st.tuples(st.floats(0, 1, exclude_max=True), HOSTILE, st.booleans())
