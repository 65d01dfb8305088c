"""Messages: numbers go through to the bit, and nothing else comes in."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

pytest.importorskip("msgpack", reason="needs the extra [serve]")

import msgpack

from langsteer.errors import UserError
from langsteer.serving.messages import Offer, checked_actions
from langsteer.serving.wire import BadMessageError, pack, unpack

NUMBERS = st.sampled_from(["?", "u1", "i2", "i8", "f2", "f4", "f8"])


@given(
    NUMBERS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0)))
)
@settings(max_examples=60)
def test_arrays_come_back_to_the_bit(array):
    back = unpack(pack({"observation/x": array, "nested": [{"y": array}], "prompt": "go"}))
    for found in (back["observation/x"], back["nested"][0]["y"]):
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes()
    assert back["prompt"] == "go"
    assert unpack(pack({"x": np.float32(0.1)}))["x"] == np.float32(0.1)


@pytest.mark.parametrize("text", [np.array([["ab", "c"]]), np.array([b"xy"]), np.str_("push")])
def test_text_of_openpis_packer_is_read(text):
    kind = b"__ndarray__" if isinstance(text, np.ndarray) else b"__npgeneric__"
    data = text.tobytes() if isinstance(text, np.ndarray) else text.item()
    sent = {kind: True, b"data": data, b"dtype": text.dtype.str, b"shape": text.shape}
    found = unpack(msgpack.packb({"x": sent}))["x"]
    assert found.dtype == text.dtype and found.tolist() == text.tolist()


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array(["a"]), np.zeros(1, complex), object()]
)
def test_what_is_no_number_does_not_travel(value):
    with pytest.raises(TypeError, match="cannot travel"):
        pack({"x": value})


@pytest.mark.parametrize(
    "array",
    [
        {b"data": b"\x80\x04N.", b"dtype": "|O", b"shape": [1]},
        {b"data": b"1234", b"dtype": "<f4", b"shape": [2]},
        {b"data": b"1234", b"dtype": "<f4", b"shape": [-1]},
        {b"data": b"1234", b"dtype": "<f4", b"shape": [1 << 62, 1 << 62]},
        {b"data": b"", b"dtype": "V0", b"shape": [1 << 40]},
        {b"data": b"", b"dtype": "<U0", b"shape": [1 << 40]},
        {b"data": b"\xff\xff\xff\xff", b"dtype": "<U1", b"shape": [1]},
        {b"data": "text", b"dtype": "<f4", b"shape": [1]},
        {b"dtype": 4},
    ],
)
def test_array_that_lies_about_itself_is_refused(array):
    with pytest.raises(BadMessageError):
        unpack(msgpack.packb({"x": {b"__ndarray__": True, **array}}))


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_are_a_message_or_refused(data):
    with contextlib.suppress(BadMessageError):
        assert isinstance(unpack(data), dict)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({}, "no key 'actions'"),
        ({"actions": "none"}, "no numbers"),
        ({"actions": np.zeros((8, 6))}, r"\(8, 6\), expected \(K, 7\)"),
        ({"actions": np.zeros((0, 7))}, r"\(0, 7\)"),
        ({"actions": np.full((2, 7), np.nan)}, r"actions\[0\].*finite"),
    ],
)
def test_answer_without_good_actions_is_refused(answer, complaint):
    with pytest.raises(ValueError, match=complaint):
        checked_actions(answer)


def test_single_action_is_a_chunk_of_one():
    assert checked_actions({"actions": [0.0] * 7}).shape == (1, 7)


def test_offer_travels_and_nonsense_is_refused():
    offer = Offer(("rgb", "cloud"), "absolute", 2, True)
    assert Offer.from_metadata(unpack(pack(offer.to_metadata()))) == offer
    assert Offer.from_metadata({"server": "openpi"}) == Offer()
    for wrong in ({"observation": ["lidar"]}, {"actions": "joints"}, {"n_obs_steps": 0}):
        with pytest.raises(UserError, match="metadata"):
            Offer.from_metadata(wrong)
