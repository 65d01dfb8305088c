"""Reading and writing CALVIN folders, good ones and bad ones."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA
from langsteer.calvin.dataset import (
    Annotation,
    BadFrameError,
    list_frames,
    open_dataset,
    read_annotations,
    read_frame,
    read_ranges,
)
from langsteer.calvin.dataset_writer import achieved_actions
from langsteer.calvin.npy import UnreadableFileError, load_npy, read_npz
from langsteer.errors import UserError

NAMES = ("rgb_static", "rgb_gripper", "depth_static", "depth_gripper", "robot_obs", "rel_actions")
ANNOTATIONS = [(12, 18, "open_drawer", "pull it"), (15, 20, "close_drawer", "öffne nicht")]


@pytest.fixture
def folder(tmp_path, make_calvin):
    return make_calvin(tmp_path / "calvin", {"training": ([(10, 16), (17, 20)], ANNOTATIONS)})


@pytest.fixture
def split(folder):
    return open_dataset(folder)[0]


# The sample of the real simulator


def test_sample_is_read_as_its_readme_says(shared):
    training, validation = open_dataset(shared / "calvin_sample")
    assert (training.name, validation.name) == ("training", "validation")
    assert training.config.static == STATIC_CAMERA
    assert training.config.gripper == GRIPPER_CAMERA
    assert training.config.renderer == "tiny"
    assert read_ranges(training).tolist() == [[358482, 358621], [358622, 358744]]
    assert read_annotations(training)[0] == Annotation(
        358483, 358547, "open_drawer", "pull the drawer"
    )
    assert len(read_annotations(training)) == 7
    np.testing.assert_array_equal(list_frames(validation), np.arange(553567, 553674))


def test_official_configuration_names_egl(calvin_assets):
    from langsteer.calvin.dataset import read_config

    config = read_config(calvin_assets / "benchmark" / "validation")
    assert config.renderer == "egl"
    assert config.pixel_centre == (0.5, 0.5)


def test_frame_equals_what_numpy_reads(shared):
    split = open_dataset(shared / "calvin_sample")[0]
    path = split.frame_path(358500)
    assert isinstance(path, Path)
    frame = read_frame(path, NAMES, split.config)
    with np.load(path) as expected:
        assert set(frame) == set(NAMES)
        for name in NAMES:
            np.testing.assert_array_equal(frame[name], expected[name])
            assert frame[name].dtype == expected[name].dtype


def test_achieved_actions_are_those_of_the_simulator(shared):
    split = open_dataset(shared / "calvin_sample")[0]
    frames = [
        read_frame(split.frame_path(number), ["robot_obs", "actions", "rel_actions"], split.config)
        for number in range(358482, 358602)
    ]
    actions, relative = achieved_actions(np.stack([frame["robot_obs"] for frame in frames]))
    np.testing.assert_allclose(actions, [frame["actions"] for frame in frames[:-1]], atol=1e-12)
    np.testing.assert_allclose(relative, [f["rel_actions"] for f in frames[:-1]], atol=1e-9)


# Written folders


def test_what_was_written_is_read(folder, split):
    assert read_ranges(split).tolist() == [[10, 16], [17, 20]]
    assert read_annotations(split) == [Annotation(*row) for row in ANNOTATIONS]
    assert list_frames(split).tolist() == list(range(10, 21))
    frame = read_frame(split.frame_path(10), NAMES, split.config)
    assert frame["robot_obs"].dtype == np.float64
    assert np.load(split.folder / "ep_lens.npy").tolist() == [7, 4]


def test_written_folder_has_the_official_files_arrays_and_dtypes(folder, shared):
    official = shared / "calvin_sample" / "training"
    names = {str(path.relative_to(official)) for path in official.rglob("*") if path.is_file()}
    written = {str(path.relative_to(folder / "training")) for path in folder.rglob("*.*")}
    assert {name for name in names if "episode_" not in name} <= written
    with (
        np.load(official / "episode_0358482.npz") as theirs,
        np.load(folder / "training" / "episode_0000010.npz") as ours,
    ):
        assert set(ours.files) == {name for name in theirs.files if "tactile" not in name}
        for name in ours.files:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].ndim == theirs[name].ndim
    for name in ("scene_info.npy", "lang_annotations/auto_lang_ann.npy"):
        theirs, ours = (
            np.load(where / name, allow_pickle=True).item()
            for where in (official, folder / "training")
        )
        assert ours.keys() == theirs.keys()
    assert ours["language"]["emb"].shape == (2, 1, 384)
    assert ours["language"]["emb"].dtype == np.float32
    statistics = yaml.safe_load((folder / "training" / "statistics.yaml").read_text())
    assert statistics.keys() == yaml.safe_load((official / "statistics.yaml").read_text()).keys()


def test_statistics_are_those_of_the_frames(folder, split):
    frames = [
        read_frame(split.frame_path(n), ["robot_obs", "actions"], split.config)
        for n in range(10, 21)
    ]
    robot_obs = np.stack([frame["robot_obs"] for frame in frames])
    statistics = yaml.safe_load((split.folder / "statistics.yaml").read_text())
    np.testing.assert_allclose(statistics["robot_obs"][0]["mean"], robot_obs.mean(0), atol=1e-9)
    np.testing.assert_allclose(statistics["robot_obs"][0]["std"], robot_obs.std(0), atol=1e-6)
    actions = np.stack([frame["actions"] for frame in frames])
    np.testing.assert_allclose(statistics["act_max_bound"], actions.max(0))


# Bad folders


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_folder_that_is_not_calvin(tmp_path):
    with pytest.raises(UserError, match="not a CALVIN dataset"):
        open_dataset(tmp_path)


def test_split_given_for_its_dataset_is_told(folder):
    with pytest.raises(UserError, match="did you mean"):
        open_dataset(folder / "training")


@pytest.mark.parametrize("name", ["validation", "test"])
def test_split_that_is_not_there(folder, name):
    with pytest.raises(UserError, match=name):
        open_dataset(folder, [name])


def test_missing_configuration_says_what_to_do(folder):
    shutil.rmtree(folder / "training" / ".hydra")
    with pytest.raises(UserError, match=r"merged_config.yaml: missing; .* Copy \.hydra/"):
        open_dataset(folder)


@pytest.mark.parametrize("content", ["", "cameras: {}", "a: [", "cameras: 5\n", "\x00\x01"])
def test_broken_configuration(folder, content):
    (folder / "training" / ".hydra" / "merged_config.yaml").write_text(content)
    with pytest.raises(UserError, match="not the configuration"):
        open_dataset(folder)


def test_missing_annotations_say_what_to_do(split):
    shutil.rmtree(split.folder / "lang_annotations")
    with pytest.raises(UserError, match="--episodes play"):
        read_annotations(split)


def test_missing_ranges(split):
    (split.folder / "ep_start_end_ids.npy").unlink()
    with pytest.raises(UserError, match=r"ep_start_end_ids.npy: missing"):
        read_ranges(split)


@pytest.mark.parametrize("table", [[1, 2], [[1, 2, 3]], [[5, 4]], [[-1, 4]], [[0.5, 1.5]]])
def test_ranges_that_are_none(split, table):
    np.save(split.folder / "ep_start_end_ids.npy", np.array(table))
    with pytest.raises(UserError, match="ep_start_end_ids"):
        read_ranges(split)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [1, 2],
        {"language": {"task": ["a"], "ann": []}, "info": {"indx": [(0, 1)]}},
        {"language": {"task": ["a"], "ann": ["b"]}, "info": {"indx": [(0, 1, 2)]}},
        {"language": {"task": [1], "ann": ["b"]}, "info": {"indx": [(0, 1)]}},
    ],
)
def test_annotations_that_are_none(split, tree):
    np.save(split.folder / "lang_annotations" / "auto_lang_ann.npy", np.asanyarray(tree, object))
    with pytest.raises(UserError, match="not CALVIN's annotations"):
        read_annotations(split)


# Bad frames


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_truncated_frame(split, keep):
    path = split.frame_path(12)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFrameError, match=str(path)):
        read_frame(path, NAMES, split.config)


def test_frame_that_is_no_zip(split):
    split.frame_path(12).write_text("not found, 404")
    with pytest.raises(BadFrameError, match="no npz"):
        read_frame(split.frame_path(12), NAMES, split.config)


def test_missing_frame(split):
    with pytest.raises(BadFrameError, match="missing"):
        read_frame(split.frame_path(99), NAMES, split.config)


def test_no_flipped_byte_gives_a_wrong_frame(split):
    path = split.frame_path(12)
    good = path.read_bytes()
    expected = read_frame(path, NAMES, split.config)
    for position in np.random.default_rng(0).integers(0, len(good), 300):
        broken = bytearray(good)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            frame = read_frame(path, NAMES, split.config)
        except BadFrameError:
            continue
        for name in NAMES:  # the byte was of no consequence, e.g. a date
            np.testing.assert_array_equal(frame[name], expected[name])


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("depth_static", lambda a: a[:-1], "shape"),
        ("rgb_static", lambda a: a[..., :2], "shape"),
        ("robot_obs", lambda a: a[:14], "shape"),
        ("depth_gripper", lambda a: a.astype(np.float64), "float64"),
        ("rgb_gripper", lambda a: a / 255.0, "float64"),
        ("rel_actions", lambda a: a.astype(np.int64), "int64"),
        ("depth_static", lambda a: np.where(np.arange(40) == 3, np.nan, a), "no numbers"),
        ("depth_static", lambda a: a * 0, "zero"),
        ("depth_gripper", lambda a: a + np.inf, "no numbers"),
        ("robot_obs", lambda a: a + np.nan, "no numbers"),
    ],
)
def test_array_of_a_frame_that_is_wrong(split, name, change, what):
    path = split.frame_path(12)
    with np.load(path) as file:
        arrays = dict(file)
    changed = change(arrays[name])
    arrays[name] = (
        changed.astype(np.float32) if what == "no numbers" and "depth" in name else changed
    )
    np.savez_compressed(path, **arrays)
    with pytest.raises(BadFrameError, match=f"{name} .*{what}"):
        read_frame(path, NAMES, split.config)


def test_array_that_lacks(split):
    path = split.frame_path(12)
    np.savez_compressed(path, robot_obs=np.zeros(15))
    with pytest.raises(BadFrameError, match="no array 'rgb_static'"):
        read_frame(path, NAMES, split.config)


def test_pickled_array_in_a_frame_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UnreadableFileError, match="Python objects"):
        read_npz(tmp_path / "a.npz", ["x"])


# Pickles


class Malicious:
    """Unpickling it makes a file, if anything lets it."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_runs_no_code(split, tmp_path, protocol):
    target = tmp_path / "executed"
    content = np.empty((), dtype=object)
    content[()] = {"language": Malicious(target), "info": {}}
    path = split.folder / "lang_annotations" / "auto_lang_ann.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(content, file, protocol=protocol)
    with pytest.raises(UserError, match="mkdir"):
        read_annotations(split)
    assert not target.exists()
    np.load(path, allow_pickle=True)  # the trap itself works
    assert target.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("os", "system"),
        ("posix", "system"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray._reconstruct", "__globals__"),
        ("numpy.core.numeric", "fromfunction"),
        ("numpy.testing._private.utils", "runstring"),
        ("codecs", "decode"),
        ("functools", "partial"),
    ],
)
def test_dangerous_names_are_refused(tmp_path, module, name):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(f"c{module}\n{name}\n.".encode())
    with pytest.raises(UnreadableFileError, match=name):
        load_npy(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_objects_pickled_by_numpy_1_and_2_load(tmp_path, protocol, core):
    tree: dict[str, Any] = {
        "emb": np.arange(6, dtype=np.float32).reshape(2, 3),
        "indx": [(np.int64(3), np.int64(9))],
        "strings": np.array(["a", "ö"]),
        "nested": {"set": {1, 2}, "bytes": b"\x00\xff"},
    }
    content = np.empty((), dtype=object)
    content[()] = tree
    pickled = pickle.dumps(content, protocol=protocol)
    if protocol < 4:  # names are lines, so their length may change
        pickled = pickled.replace(b"numpy._core.", core).replace(b"numpy.core.", core)
    elif core == b"numpy.core.":
        pytest.skip("NumPy 1 wrote its files with protocols up to 3")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(pickled)
    loaded = load_npy(tmp_path / "a.npy").item()
    np.testing.assert_array_equal(loaded["emb"], tree["emb"])
    assert loaded["indx"] == tree["indx"]
    assert loaded["strings"].tolist() == tree["strings"].tolist()
    assert loaded["nested"] == tree["nested"]


@pytest.mark.parametrize("keep", [0, 5, 60, 130, 400])
def test_truncated_npy(split, keep):
    path = split.folder / "lang_annotations" / "auto_lang_ann.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="auto_lang_ann"):
        read_annotations(split)
