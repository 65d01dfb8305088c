"""No bit of a store's arrays changes unseen."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langsteer.data.checksums import BYTES, crc32c
from langsteer.data.episodes import EpisodeTable
from langsteer.data.inspection import check_store
from langsteer.data.layout import INDEX_BYTES
from langsteer.data.mapped import MappedArray
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store
from langsteer.data.store_writer import create_arrays, write_metadata
from langsteer.data.zarr_arrays import open_array
from langsteer.errors import UserError
from langsteer.training.replay_buffer import ReplayBuffer

RAW = ("point_cloud", "action", "state")


def test_checksum_is_the_one_of_the_standard():
    rows = np.frombuffer(b"123456789" + bytes(9), np.uint8).reshape(2, 9)
    assert crc32c(rows)[0] == 0xE3069283  # RFC 3720's and everybody's check value
    thirty_two = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8)])
    assert crc32c(thirty_two).tolist() == [0x8A9136AA, 0x62A8AB43]  # RFC 3720, B.4


@pytest.fixture(scope="module")
def copy(small_store, tmp_path_factory):
    return shutil.copytree(small_store.path, tmp_path_factory.mktemp("copy") / "a.zarr")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(RAW), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_by_the_check_and_changes_no_training(copy, name, place, bit):
    shard = sorted((copy / "data" / name).glob("c.*"))[-1]
    good, rows = ReplayBuffer(open_store(copy), use_colour=True), np.arange(90)
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1 << bit
    shard.write_bytes(damaged)
    try:
        with pytest.raises(UserError):
            check_store(open_store(copy))
        with suppress(UserError):
            changed = ReplayBuffer(open_store(copy), use_colour=True)
            # The bit was of the index, and of frames that the last file does not have.
            np.testing.assert_array_equal(changed.states, good.states)
            np.testing.assert_array_equal(changed.actions, good.actions)
            np.testing.assert_array_equal(changed.points(rows), good.points(rows))
            assert place * len(whole) >= len(whole) - INDEX_BYTES * 16 - BYTES
    finally:
        shard.write_bytes(whole)


def test_a_wrong_checksum_names_file_and_frame(small_store, tmp_path):
    copy = shutil.copytree(small_store.path, tmp_path / "a.zarr")
    shard = copy / "data" / "state" / "c.1.0"
    content = bytearray(shard.read_bytes())
    content[70] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.1\.0: the checksum of frame 9 is wrong"):
        MappedArray(copy, "state").read()


def test_a_flipped_bit_in_the_episode_ends_is_found(small_store, tmp_path):
    copy = shutil.copytree(small_store.path, tmp_path / "a.zarr")
    (chunk,) = (path for path in (copy / "meta" / "episode_ends").rglob("*") if path.name == "0")
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(UserError, match="episode_ends"):
        open_store(copy)


def test_a_store_of_an_earlier_version_without_checksums_is_read(tmp_path):
    path, pipeline = tmp_path / "old.zarr", ObservationPipeline(n_points=8)
    create_arrays(path, pipeline, 10, RAW, frames_per_shard=4)
    random = np.random.default_rng(0)
    for name in RAW:
        file = path / "data" / name / "zarr.json"
        node = json.loads(file.read_text())
        node["codecs"][0]["configuration"]["codecs"].pop()
        file.write_text(json.dumps(node))
        array = open_array(path, name, write=True)
        array.write(random.random(array.shape, np.float32)).result()
    numbers, words = {"first_frame": [0], "group": [0]}, {"task": [""], "instruction": [""]}
    table = EpisodeTable.from_dict({"split": ["training"], **words, **numbers})
    write_metadata(path, pipeline, np.array([10]), table)
    store = open_store(path)
    buffer = ReplayBuffer(store)
    np.testing.assert_array_equal(buffer.states, store.read("state"))
    np.testing.assert_array_equal(buffer.points(np.arange(10)), store.read("point_cloud")[..., :3])
