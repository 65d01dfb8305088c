"""A store whose metadata were changed is an error that names the file, and never a traceback."""

import json
import os
import shutil

import pytest

from langsteer.data.conversion import convert
from langsteer.data.store import open_store
from langsteer.errors import UserError

ROOT, META, STATE = "zarr.json", "meta/zarr.json", "data/state/zarr.json"
HUGE = 10**12


@pytest.fixture
def copy(small_store, tmp_path):
    return shutil.copytree(small_store.path, tmp_path / "a.zarr")


def change(file, keys, value):
    """Set the value under nested keys of a JSON file; None deletes it."""
    tree = json.loads(file.read_text())
    node = tree
    for key in keys[:-1]:
        node = node[key]
    if value is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    file.write_text(json.dumps(tree))


CHANGES = [
    (ROOT, ["attributes"], 5, "not a Zarr v3 group"),
    (ROOT, ["attributes", "pipeline"], None, "pipeline is missing"),
    (ROOT, ["attributes", "pipeline"], [1], "pipeline=.*expected names and values"),
    (ROOT, ["attributes", "pipeline", "n_points"], "64", "n_points='64': expected a whole"),
    (ROOT, ["attributes", "pipeline", "n_points"], HUGE, "1048576 at most"),
    (ROOT, ["attributes", "pipeline", "static"], 3, "static=3: expected names and values"),
    (ROOT, ["attributes", "pipeline", "static", "fov"], 180, "0.1 to 170 degrees"),
    (ROOT, ["attributes", "pipeline", "static", "height"], 0, "1 or more"),
    (ROOT, ["attributes", "pipeline", "static", "up"], [0, 0, 0], "not in line"),
    (ROOT, ["attributes", "pipeline", "static", "look_at"], [0.0, 3.0, 0.4], "workspace box"),
    (ROOT, ["attributes", "pipeline", "box"], [[0, 1], [0, 1]], "box="),
    (ROOT, ["attributes", "pipeline", "box", 0], [0, 10**400], "box="),
    (ROOT, ["attributes", "conversion"], "x", "conversion='x'"),
    (ROOT, ["attributes", "conversion", "left_out"], [1], r"left_out\[0\]=1"),
    (META, ["attributes", "episodes"], None, "episodes is missing"),
    (META, ["attributes", "episodes", "group", 2], "a", r"episodes\.group\[2\]='a'"),
    (META, ["attributes", "episodes", "group", 2], 2**70, r"episodes\.group\[2\]="),
    (META, ["attributes", "episodes", "task", 1], "\ud800", r"episodes\.task\[1\]="),
    (META, ["attributes", "episodes", "split", 0], "test", r"episodes\.split\[0\]='test'"),
    (META, ["attributes", "episodes", "task"], ["a"], r"columns of \[1, 5\] episodes"),
    (STATE, ["shape"], "x", "shape='x'"),
    (STATE, ["shape", 0], HUGE, "has shape"),
    (STATE, ["data_type"], "float64", "float64"),
    (STATE, ["chunk_grid", "configuration", "chunk_shape", 0], HUGE, "shorter than its index"),
    (STATE, ["codecs", 0, "configuration", "chunk_shape", 0], 8, "chunks"),
    (STATE, ["codecs"], [], "codecs"),
    ("meta/episode_ends/zarr.json", ["shape", 0], HUGE, "table of 5 episodes"),
    ("meta/episode_ends/zarr.json", ["chunk_grid", "configuration", "chunk_shape", 0], HUGE, "5 e"),
]


@pytest.mark.parametrize(("file", "keys", "value", "message"), CHANGES)
def test_changed_metadata_are_told_when_the_store_is_opened(copy, file, keys, value, message):
    change(copy / file, keys, value)
    with pytest.raises(UserError, match=message) as found:
        open_store(copy)
    assert str(copy) in str(found.value)
    assert len(str(found.value)) < 1500


@pytest.mark.parametrize("name", ["zarr.json", "meta/zarr.json", "data/state/c.1.0"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(UserError, match=r"pipe|no file"):
        open_store(copy)


def test_a_missing_shard_is_told_when_the_store_is_opened(copy):
    (copy / "data" / "point_cloud" / "c.3.0.0").unlink()
    with pytest.raises(UserError, match=r"c\.3\.0\.0: missing"):
        open_store(copy)


def test_conversion_onto_a_store_with_changed_attributes_is_refused(
    copy, small_calvin, small_settings
):
    change(copy / ROOT, ["attributes", "conversion"], "x")
    with pytest.raises(UserError, match="it holds something else"):
        convert(small_calvin, copy, small_settings(), num_workers=1)
