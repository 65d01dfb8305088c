"""LeRobot's format: what goes out comes back, to the bit where the format keeps it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from langsteer.calvin.dataset import open_dataset, read_annotations, read_frame, read_ranges
from langsteer.data import lerobot_export
from langsteer.data import lerobot_format as lerobot
from langsteer.data.lerobot_command import export_main, import_main
from langsteer.data.lerobot_export import export
from langsteer.data.lerobot_sources import CalvinSource, StoreSource
from langsteer.data.plan import make_plan

IMAGES = ("rgb_static", "rgb_gripper", "depth_static", "depth_gripper")
VECTORS = ("robot_obs", "scene_obs", "rel_actions")


@pytest.fixture
def source(small_calvin, small_settings):
    return CalvinSource(make_plan(small_calvin, small_settings()))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Several files of a small dataset."""
    monkeypatch.setattr(lerobot_export, "_FRAMES_PER_FILE", 30)


def frames_of(source):
    return [source.frame(row) for row in range(int(source.episode_ends[-1]))]


def read_values(path: Path) -> dict[str, np.ndarray]:
    """All columns, images decoded."""
    features = json.loads((path / lerobot.INFO_PATH).read_text())["features"]
    tables = [pq.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))]
    rows = pa.concat_tables(tables)
    return {
        name: np.stack([lerobot.decode(cell, features[name]) for cell in rows[name].to_pylist()])
        for name in features
    }


def test_every_value_is_in_the_files(source, tmp_path):
    export(source, tmp_path / "a")
    found, expected = read_values(tmp_path / "a"), frames_of(source)
    for name in source.features:
        values = np.stack([frame[name] for frame in expected])
        if "depth" not in name and values.dtype != np.uint8:
            values = values.astype(np.float32)
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    ends = source.episode_ends.tolist()
    assert [int(n) for n in np.flatnonzero(np.diff(found["episode_index"])) + 1] == ends[:-1]
    np.testing.assert_array_equal(found["index"], np.arange(ends[-1]))
    np.testing.assert_allclose(found["timestamp"], found["frame_index"] / 30, atol=1e-6)
    assert len(list((tmp_path / "a" / "data").rglob("*.parquet"))) > 1
    assert not list(tmp_path.glob("*.partial"))


def test_statistics_are_those_of_the_frames(source, tmp_path):
    export(source, tmp_path / "a")
    stats = json.loads((tmp_path / "a" / lerobot.STATS_PATH).read_text())
    frames = frames_of(source)
    states = np.stack([frame[lerobot.STATE] for frame in frames])
    np.testing.assert_allclose(stats[lerobot.STATE]["mean"], states.mean(axis=0))
    np.testing.assert_allclose(stats[lerobot.STATE]["std"], states.std(axis=0), atol=1e-6)
    images = np.stack([frame[lerobot.IMAGES["static"]] for frame in frames]) / 255
    found = np.array(stats[lerobot.IMAGES["static"]]["mean"])
    np.testing.assert_allclose(found, images.mean(axis=(0, 1, 2)).reshape(3, 1, 1))
    assert stats[lerobot.ACTION]["count"] == [len(frames)]


def test_folder_comes_back_and_its_store_is_the_same(
    small_calvin, small_settings, small_store, converted, contents, source, tmp_path
):
    export(source, tmp_path / "a")
    import_main(["--source", str(tmp_path / "a"), "--save_path", str(tmp_path / "back")])
    rows = iter(range(small_store.n_frames))
    for split in open_dataset(tmp_path / "back"):
        windows = read_annotations(split)
        assert [tuple(row) for row in read_ranges(split)] == [(w.start, w.end - 1) for w in windows]
        for window in windows:
            for number in range(window.start, window.end):
                made_of = source.plan.source_of(next(rows))
                expected = read_frame(
                    made_of.split.frame_path(made_of.number), IMAGES + VECTORS, split.config
                )
                found = read_frame(split.frame_path(number), IMAGES + VECTORS, split.config)
                for name in IMAGES:
                    np.testing.assert_array_equal(found[name], expected[name])
                for name in VECTORS:
                    np.testing.assert_array_equal(found[name], expected[name].astype(np.float32))
    store = converted(tmp_path / "back", tmp_path / "b.zarr", small_settings())
    for name, values in contents(small_store.path).items():
        if name in ("img", "depth", "state", "action", "ends"):
            np.testing.assert_array_equal(contents(store.path)[name], values)
    assert store.episodes.instruction.tolist() == small_store.episodes.instruction.tolist()
    assert store.episodes.task.tolist() == small_store.episodes.task.tolist()
    assert store.episodes.split.tolist() == small_store.episodes.split.tolist()


def test_export_that_was_killed_goes_on_with_what_is_missing(source, tmp_path, monkeypatch):
    export(source, tmp_path / "whole")
    frame = CalvinSource.frame
    read: list[int] = []

    def dies(self, row):
        if row == 60 and not read.count(60):
            read.append(60)
            raise KeyboardInterrupt
        read.append(row)
        return frame(self, row)

    monkeypatch.setattr(CalvinSource, "frame", dies)
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    export(source, tmp_path / "a")
    assert read.count(0) == 1
    names = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")]
    assert names
    for name in names:
        one, other = tmp_path / "a" / name, tmp_path / "whole" / name
        assert one.is_dir() or one.read_bytes() == other.read_bytes()


def test_store_and_zip_are_exported(small_calvin, small_store, source, tmp_path, capsys):
    store = ["--source", str(small_store.path), "--clouds", "--num_workers", "1"]
    export_main([*store, "--save_path", str(tmp_path / "a")])
    assert "90 frames in 5 episodes" in capsys.readouterr().out
    found = read_values(tmp_path / "a")
    np.testing.assert_array_equal(found[lerobot.CLOUD], small_store.read("point_cloud")[..., :3])
    np.testing.assert_array_equal(found[lerobot.DEPTHS["static"]], small_store.read("depth"))
    assert StoreSource(small_store.path).features.keys() < found.keys()
    archive = shutil.make_archive(str(tmp_path / "d"), "zip", small_calvin.parent, "calvin")
    zipped = CalvinSource(make_plan(Path(archive), source.plan.settings))
    export(zipped, tmp_path / "b", num_workers=2)
    export(source, tmp_path / "c")
    for name in ("data/chunk-000/file-001.parquet", lerobot.STATS_PATH):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_what_cannot_be_done_is_said(source, small_store, tmp_path, capsys):
    def refused(main, *arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert caught.value.code == 2
        return capsys.readouterr().err

    export(source, tmp_path / "a")
    store = ("--source", small_store.path)
    assert "exists already" in refused(export_main, *store, "--save_path", tmp_path / "a")
    chosen = refused(export_main, *store, "--save_path", tmp_path / "b", "--max_episodes", "1")
    assert "a store is exported whole" in chosen
    export_main(["--source", str(small_store.path), "--save_path", str(tmp_path / "b")])
    few = ("--source", tmp_path / "b", "--save_path", tmp_path / "c")
    assert "nothing tells the cameras" in refused(import_main, *few)
    assert "not a LeRobot" in refused(import_main, "--source", tmp_path, *few[2:])
    (tmp_path / "a" / "data" / "chunk-000" / "file-000.parquet").write_bytes(b"PAR1")
    broken = refused(import_main, "--source", tmp_path / "a", *few[2:])
    assert "file-000.parquet: damaged" in broken
    assert not (tmp_path / "c").exists()


def test_lerobots_own_reader_sees_every_frame(source, tmp_path):
    python = os.environ.get("LEROBOT_PYTHON")
    if python is None:
        pytest.skip("LEROBOT_PYTHON names no Python that has LeRobot")
    export(source, tmp_path / "a")
    reader = Path(__file__).with_name("lerobot_reader.py")
    command = [python, str(reader), str(tmp_path / "a"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    with np.load(tmp_path / "out.npz") as arrays:
        found = dict(arrays)
    assert json.loads(str(found["said"])) == {"episodes": 5, "depth": list(lerobot.DEPTHS.values())}
    for row, frame in enumerate(frames_of(source)):
        for name in lerobot.IMAGES.values():
            expected = frame[name].transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_array_equal(found[name][row], expected.astype(np.float32))
        for name in lerobot.DEPTHS.values():
            np.testing.assert_array_equal(found[name][row], frame[name][None])
        for name in (lerobot.STATE, lerobot.SCENE, lerobot.ACTION):
            np.testing.assert_array_equal(found[name][row], frame[name].astype(np.float32))
    ends = source.episode_ends
    sentences = [
        str(source.table.instruction[n]) for n in np.searchsorted(ends, range(90), "right")
    ]
    assert found["task"].tolist() == sentences
