"""Invariants of the store and of the mapped reader."""

import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest

from benchmarks.stores import write_store
from langsteer.data.episodes import EpisodeTable
from langsteer.data.mapped import MappedArray
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store, partial_path
from langsteer.data.store_writer import create_arrays, write_metadata
from langsteer.errors import UserError

N, P, SHARD = 23, 16, 8


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "point_cloud": generator.random((N, P, 6), np.float32),
        "action": generator.random((N, 7), np.float32),
        "state": generator.random((N, 15), np.float32),
        "img": generator.integers(0, 256, (N, 160, 160, 3), dtype=np.uint8),
        "depth": generator.random((N, 160, 160), np.float32),
    }
    arrays["point_cloud"][5] = 0
    arrays["action"][SHARD : 2 * SHARD] = 0
    return arrays


@pytest.fixture(scope="module")
def table():
    return EpisodeTable.from_dict(
        {
            "split": ["training", "training", "validation"],
            "task": ["open_drawer", "", "lift_red_block_table"],
            "instruction": ["pull the drawer", "", "soulève le bloc"],
            "first_frame": [358482, 358600, 553567],
            "group": [0, 1, 2],
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory, arrays, table):
    path = tmp_path_factory.mktemp("store") / "small.zarr"
    pipeline = ObservationPipeline(n_points=P)
    return write_store(path, arrays, np.array([9, 15, N]), table, pipeline, frames_per_shard=SHARD)


def test_what_was_written_is_read(store, arrays, table):
    assert store.n_frames == N
    assert store.n_points == P
    assert store.pipeline == ObservationPipeline(n_points=P)
    np.testing.assert_array_equal(store.episode_ends, [9, 15, N])
    np.testing.assert_array_equal(store.episode_starts, [0, 9, 15])
    assert store.episodes.to_dict() == table.to_dict()
    for name, values in arrays.items():
        np.testing.assert_array_equal(store.read(name), values)


def test_what_the_disk_refuses_is_an_os_error(table, tmp_path):
    folder = tmp_path / "file"
    folder.touch()
    with pytest.raises(OSError):
        create_arrays(folder, ObservationPipeline(n_points=P), N)
    with pytest.raises(OSError):
        write_metadata(folder, ObservationPipeline(n_points=P), np.array([9, 15, N]), table)


def test_common_zarr_reader_reads_the_same(store, arrays):
    zarr = pytest.importorskip("zarr", minversion="3.0")
    group = zarr.open_group(store.path, mode="r")
    for name, values in arrays.items():
        np.testing.assert_array_equal(group["data"][name][:], values)
    np.testing.assert_array_equal(group["meta/episode_ends"][:], store.episode_ends)
    assert group["meta"].attrs["episodes"]["task"] == store.episodes.task.tolist()


def test_mapped_rows_equal_the_arrays(store, arrays):
    rows = np.array([22, 0, 7, 8, 5, 5, 6, 21])
    for name, part, expected in (
        ("point_cloud", 0, arrays["point_cloud"][..., :3]),
        ("point_cloud", 1, arrays["point_cloud"][..., 3:]),
        ("action", 0, arrays["action"]),
        ("state", 0, arrays["state"]),
    ):
        mapped = MappedArray(store.path, name, part)
        assert len(mapped) == N
        np.testing.assert_array_equal(mapped.gather(rows), expected[rows])
        np.testing.assert_array_equal(mapped.gather(np.arange(N)), expected)
    assert mapped.gather(np.array([], dtype=np.int64)).shape == (0, 15)


def test_mapped_array_reads_in_forked_and_spawned_processes(store, arrays):
    mapped = MappedArray(store.path, "point_cloud")
    rows = np.array([3, 20, 11])
    mapped.gather(rows)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            np.testing.assert_array_equal(
                pool.apply(mapped.gather, (rows,)), arrays["point_cloud"][rows, :, :3]
            )
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(mapped)).gather(rows), arrays["point_cloud"][rows, :, :3]
    )


def test_reading_more_shards_than_files_may_be_open(store, arrays, monkeypatch):
    monkeypatch.setattr("langsteer.data.mapped._MAX_OPEN_FILES", 1)
    mapped = MappedArray(store.path, "state")
    for _ in range(2):
        np.testing.assert_array_equal(mapped.gather(np.arange(N)[::-1]), arrays["state"][::-1])


def test_few_files(store):
    files = [path for path in store.path.rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(files) == 5 * 3 + 1


@pytest.mark.parametrize("row", [-1, N])
def test_row_outside_is_an_index_error(store, row):
    with pytest.raises(IndexError):
        MappedArray(store.path, "state").gather(np.array([row]))


def test_compressed_array_is_refused_by_the_mapped_reader(store):
    with pytest.raises(UserError, match="compressed"):
        MappedArray(store.path, "img")


@pytest.fixture
def copy(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def test_truncated_or_missing_shard_is_a_clear_error(copy):
    shard = copy / "data" / "state" / "c.1.0"
    content = shard.read_bytes()
    for damaged in (content[:40], content[200:], content[:-200]):
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match="check the store"):
            MappedArray(copy, "state").gather(np.array([9]))
    shard.unlink()
    with pytest.raises(UserError, match="missing"):
        MappedArray(copy, "state").gather(np.array([9]))


def test_no_store_and_unfinished_store_and_foreign_folder_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no such store"):
        open_store(tmp_path / "x.zarr")
    partial_path(tmp_path / "x.zarr").mkdir()
    with pytest.raises(UserError, match="unfinished"):
        open_store(tmp_path / "x.zarr")
    with pytest.raises(UserError, match="not a Zarr"):
        open_store(tmp_path)


def test_another_version_is_refused(copy):
    node = json.loads((copy / "zarr.json").read_text())
    node["attributes"]["version"] = 99
    (copy / "zarr.json").write_text(json.dumps(node))
    with pytest.raises(UserError, match="version 99"):
        open_store(copy)


def test_contradicting_lengths_are_refused(copy):
    node = json.loads((copy / "data" / "state" / "zarr.json").read_text())
    node["shape"][0] = N - 1
    (copy / "data" / "state" / "zarr.json").write_text(json.dumps(node))
    with pytest.raises(
        UserError, match=r"state has shape \(22, 15\) of float32, expected \(23, 15\)"
    ):
        open_store(copy)


def test_skipped_array_is_a_clear_error(copy):
    shutil.rmtree(copy / "data" / "img")
    with pytest.raises(UserError, match="no img"):
        open_store(copy).read("img")
