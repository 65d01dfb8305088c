"""A dataset in its zip is the dataset in its folder."""

import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pytest

from langsteer.calvin.archive import open_archive
from langsteer.calvin.dataset import (
    BadFrameError,
    list_frames,
    open_dataset,
    read_annotations,
    read_frame,
    read_ranges,
)
from langsteer.calvin.scenes import scene_of
from langsteer.errors import UserError

NAMES = ("rgb_static", "rgb_gripper", "depth_static", "depth_gripper", "robot_obs", "rel_actions")
ANNOTATIONS = [(12, 18, "open_drawer", "pull it"), (15, 20, "close_drawer", "öffne nicht")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_calvin):
    root = tmp_path_factory.mktemp("archive") / "task_D_D"
    return make_calvin(root, {"training": ([(10, 16), (17, 20)], ANNOTATIONS)})


def pack(folder: Path, target: Path, top: str = "task_D_D/", offset: int = 0, **how) -> Path:
    """A zip of a folder; with an offset, one whose files lie that far behind its beginning."""
    with target.open("wb") as file:
        file.seek(offset)
        with zipfile.ZipFile(file, "w", **how) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, top + str(path.relative_to(folder)))
            archive.comment = b"CALVIN"
    return target


class Streamed(zipfile.ZipFile):
    """Written to a pipe: sizes and checksums follow each file."""

    def __init__(self, file: BinaryIO, mode: Literal["w"], **settings: Any) -> None:
        class Pipe:
            def __init__(self) -> None:
                self.write, self.flush, self.close = file.write, file.flush, file.close

        super().__init__(Pipe(), mode, **settings)


@pytest.mark.parametrize(
    "how",
    [
        {"compression": zipfile.ZIP_DEFLATED},
        {"compression": zipfile.ZIP_STORED},
        {"top": ""},
        {"top": "./data/"},
        {"offset": 5 << 30},  # a sparse file whose places need 64 bits
    ],
    ids=str,
)
def test_zip_holds_what_its_folder_holds(folder, tmp_path, how):
    (one,) = open_dataset(folder)
    (other,) = open_dataset(pack(folder, tmp_path / "d.zip", **how))
    assert_same_split(one, other)


def test_zip_that_was_written_to_a_pipe(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZipFile", Streamed)
    path = pack(folder, tmp_path / "d.zip", compression=zipfile.ZIP_DEFLATED)
    monkeypatch.undo()
    assert_same_split(open_dataset(folder)[0], open_dataset(path)[0])


def assert_same_split(one, other):
    assert other.config == one.config
    assert other.name == one.name
    assert scene_of(other, 12) == scene_of(one, 12)
    assert read_annotations(other) == read_annotations(one)
    np.testing.assert_array_equal(read_ranges(other), read_ranges(one))
    np.testing.assert_array_equal(list_frames(other), list_frames(one))
    for number in list_frames(one):
        expected = read_frame(one.frame_path(number), NAMES, one.config)
        found = read_frame(other.frame_path(number), NAMES, one.config)
        for name in NAMES:
            np.testing.assert_array_equal(found[name], expected[name])
            assert found[name].dtype == expected[name].dtype


def test_frame_that_lacks_or_is_damaged_is_named(folder, tmp_path):
    path = pack(folder, tmp_path / "d.zip")
    (split,) = open_dataset(path)
    with pytest.raises(BadFrameError, match=r"d\.zip/task_D_D/training/episode_0000099.*missing"):
        read_frame(split.frame_path(99), NAMES, split.config)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("task_D_D/training/episode_0000012.npz").header_offset + 200
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadFrameError, match=r"episode_0000012\.npz: damaged in the zip"):
        read_frame(split.frame_path(12), NAMES, split.config)
    read_frame(split.frame_path(13), NAMES, split.config)


def test_no_flipped_byte_of_the_list_gives_a_wrong_frame(folder, tmp_path):
    path = pack(folder, tmp_path / "d.zip")
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    good = path.read_bytes()
    (split,) = open_dataset(path)
    expected = read_frame(split.frame_path(12), NAMES, split.config)
    for position in np.random.default_rng(0).integers(start, len(good), 200):
        broken = bytearray(good)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            (split,) = open_dataset(path)
            frame = read_frame(split.frame_path(12), NAMES, split.config)
        except (UserError, BadFrameError):
            continue
        for name in NAMES:
            np.testing.assert_array_equal(frame[name], expected[name])


@pytest.mark.parametrize("keep", [0, 1, 100, -7, -30, -1000])
def test_download_that_stopped_says_how_to_go_on(folder, tmp_path, keep):
    path = pack(folder, tmp_path / "d.zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"d\.zip: cannot be read as a zip .*wget -c"):
        open_dataset(path)


def test_zip_of_something_else_and_of_two_datasets(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b.txt", "")
    with pytest.raises(UserError, match="not a CALVIN dataset"):
        open_dataset(tmp_path / "other.zip")
    path = pack(folder, tmp_path / "two.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("task_B_B/validation/ep_lens.npy", "")
    with pytest.raises(UserError, match=r"several datasets.*task_B_B.*task_D_D"):
        open_dataset(path)


def test_newer_of_two_files_of_one_name_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("a/x", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/x", b"new")
    assert (open_archive(tmp_path / "d.zip") / "a" / "x").read_bytes() == b"new"


def test_list_of_a_large_zip_is_small(tmp_path):
    names = [f"training/episode_{number:07d}.npz" for number in range(70_000)]
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"")
    root = open_archive(tmp_path / "d.zip")
    assert list((root / "training").names()) == [name.partition("/")[2] for name in names]
    kept = sum(array.nbytes for array in root.archive.folders["training"])
    assert kept <= 64 * len(names)
