"""Bad input gets a clear error and loses nothing."""

import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langsteer.calvin.dataset import Annotation
from langsteer.calvin.dataset_writer import merged_config, save_metadata
from langsteer.data.conversion import convert
from langsteer.data.convert_command import main
from langsteer.errors import UserError
from langsteer.resumable import Share

ROOT = Path(__file__).resolve().parents[2]
BAD_WINDOW = (25, 45)  # the second episode of small_calvin
BAD_FRAME = 33  # in it, and in no other
N_GOOD = 70


@pytest.fixture
def calvin(small_calvin, tmp_path):
    """A copy of the small CALVIN folder, to be damaged."""
    shutil.copytree(small_calvin, tmp_path / "calvin")
    return tmp_path / "calvin"


@pytest.fixture
def without_bad(small_store, contents):
    """What a store holds that lacks the episode of `BAD_WINDOW`."""
    whole = contents(small_store.path)
    keep = np.r_[0:20, 40:90]
    table = small_store.episodes.select(np.array([0, 2, 3, 4]))
    arrays = {name: whole[name][keep] for name in small_store.array_names}
    return arrays | {"ends": np.array([20, 30, 60, 70]), "episodes": table.to_dict()}


def _frame(calvin: Path, number: int = BAD_FRAME) -> Path:
    return calvin / "training" / f"episode_{number:07d}.npz"


def _change(path: Path, **changes) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **{**arrays, **{k: f(arrays[k]) for k, f in changes.items()}})


def _with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[7] = np.nan
    return array


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "no zip": lambda path: path.write_text("<html>404</html>"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "wrong shape": lambda path: _change(path, depth_static=lambda a: a[:20]),
    "wrong dtype": lambda path: _change(path, rgb_static=lambda a: a.astype(np.float32)),
    "NaN depth": lambda path: _change(path, depth_static=_with_nan),
    "NaN gripper depth": lambda path: _change(path, depth_gripper=_with_nan),
    "zero depth": lambda path: _change(path, depth_static=lambda a: a * 0),
    "NaN state": lambda path: _change(path, robot_obs=_with_nan),
    "infinite action": lambda path: _change(path, rel_actions=lambda a: a + np.inf),
    "nothing in the box": lambda path: _change(
        path, depth_static=lambda a: a * 0 + 9, depth_gripper=lambda a: a * 0 + 50
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_episode_with_a_bad_frame_is_left_out_whole_and_listed(
    calvin, small_settings, without_bad, contents, tmp_path, damage
):
    DAMAGES[damage](_frame(calvin))
    summary = convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1)
    found = contents(summary.path)
    assert found.keys() == without_bad.keys()
    for name, values in without_bad.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    (entry,) = [entry for entry in summary.left_out if "repeats" not in entry.reason]
    assert (entry.start, entry.end) == BAD_WINDOW
    assert entry.task == "close_drawer"
    assert str(BAD_FRAME) in entry.reason


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_strict_stops_at_a_bad_frame(calvin, small_settings, tmp_path, damage, workers):
    DAMAGES[damage](_frame(calvin))
    with pytest.raises(UserError, match=rf"{BAD_FRAME}.*--strict"):
        convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=workers, strict=True)
    assert not (tmp_path / "a.zarr").exists()


def test_strict_stops_at_what_an_earlier_run_found(calvin, small_settings, converted, tmp_path):
    DAMAGES["empty"](_frame(calvin))
    path = tmp_path / "a.zarr"
    for job in (0, 1):
        convert(calvin, path, small_settings(), num_workers=1, share=Share(job, 3))
    with pytest.raises(UserError, match="--strict"):
        convert(calvin, path, small_settings(), num_workers=1, strict=True)
    assert converted(calvin, path, small_settings()).n_frames == N_GOOD


def test_strict_does_not_mind_repetitions(calvin, small_settings, tmp_path):
    summary = convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1, strict=True)
    assert summary.store is not None


def test_bad_frame_in_several_episodes_and_shards_leaves_all_of_them_out(
    calvin, small_settings, converted, tmp_path
):
    for number in (27, 75, 99):  # 27 is in two windows, 75 and 99 in one window and two shards
        DAMAGES["empty"](_frame(calvin, number))
    for workers in (1, 2):
        path = tmp_path / f"{workers}.zarr"
        store = converted(calvin, path, small_settings(), num_workers=workers)
        assert store.episodes.first_frame.tolist() == [50, 203]
        assert store.n_frames == 20


def test_no_good_episode_is_an_error(calvin, small_settings, tmp_path):
    for path in calvin.rglob("episode_*.npz"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no episode is good"):
        convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1)


def _annotate(calvin: Path, *windows: tuple[int, int, str, str]) -> None:
    rows = [Annotation(*window) for window in windows]
    from langsteer.calvin.dataset import open_dataset

    config = open_dataset(calvin)[0].config
    tree = merged_config("tiny", static=config.static, gripper=config.gripper)
    save_metadata(calvin / "training", [(10, 61), (62, 110)], rows, tree)


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        ((100, 120), "missing"),
        ((500, 520), "missing"),
        ((-5, 12), "missing"),
        ((5, 12), "missing"),
        ((55, 70), "time would jump"),
        ((30, 30), "ends before"),
        ((40, 30), "ends before"),
    ],
)
def test_window_outside_of_the_files_is_left_out(calvin, small_settings, tmp_path, window, reason):
    _annotate(calvin, (10, 30, "open_drawer", "open"), (*window, "close_drawer", "close"))
    summary = convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1)
    (entry,) = summary.left_out
    assert (entry.start, entry.end) == window
    assert reason in entry.reason


def test_scalar_episode_length_is_no_problem(calvin, small_settings, tmp_path):
    for split in ("training", "validation"):
        np.save(calvin / split / "ep_lens.npy", np.int64(51))
    assert convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1).store


def test_unknown_task_is_an_error(small_calvin, small_settings, tmp_path):
    with pytest.raises(UserError, match="open_drawr"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(tasks=("open_drawr",)))


@pytest.mark.parametrize(
    "changes",
    [
        {"episodes": "play", "tasks": ("open_drawer",)},
        {"episodes": "dreams"},
        {"max_episodes": 0},
        {"frames_per_shard": 0},
        {"skip": ("state",)},
    ],
)
def test_settings_that_make_no_sense(small_settings, changes):
    with pytest.raises(UserError):
        small_settings(**changes)


def test_splits_with_different_cameras_are_not_mixed(calvin, small_settings, converted, tmp_path):
    config = calvin / "validation" / ".hydra" / "merged_config.yaml"
    config.write_text(config.read_text().replace("use_egl: false", "use_egl: true"))
    with pytest.raises(UserError, match="different cameras"):
        convert(calvin, tmp_path / "a.zarr", small_settings(), num_workers=1)
    settings = small_settings(splits=("validation",))
    store = converted(calvin, tmp_path / "a.zarr", settings)
    assert store.pipeline.pixel_centre == (0.5, 0.5)


def test_crop_larger_than_the_image(small_calvin, small_settings, tmp_path):
    with pytest.raises(UserError, match="crop of 160 pixels"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(static_crop=160))


def test_target_that_cannot_be_made(small_calvin, small_settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        convert(small_calvin, tmp_path / "file" / "a.zarr", small_settings(), num_workers=1)
    with pytest.raises(UserError, match="exists already"):
        convert(small_calvin, tmp_path / "file", small_settings(), num_workers=1)
    with pytest.raises(UserError, match="not a store"):
        convert(small_calvin, tmp_path / "file", small_settings(), overwrite=True)
    assert (tmp_path / "file").read_text() == "in the way"


def test_disk_that_is_too_small_is_told_before_the_work(
    small_calvin, small_settings, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match="make room"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(), num_workers=1)
    assert not list(tmp_path.iterdir())


def _run(
    calvin: Path, path: Path, *options: str, preexec_fn: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "convert_calvin_to_zarr.py")]
    command += ["--root_dir", str(calvin), "--save_path", str(path), "--num_points", "64"]
    command += ["--crop", "32", "--frames_per_file", "8", *options]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=preexec_fn
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_disk_that_fills_up_is_told_and_the_work_goes_on_later(
    small_calvin, small_store, contents, tmp_path, workers
):
    def refuse_files_over_20_kilobytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    path = tmp_path / "a.zarr"
    options = ("--num_workers", workers)
    full = _run(small_calvin, path, *options, preexec_fn=refuse_files_over_20_kilobytes)
    assert full.returncode == 2, full.stderr
    assert "error:" in full.stderr
    assert "cannot write" in full.stderr
    assert "Traceback" not in full.stderr
    later = _run(small_calvin, path, *options)
    assert later.returncode == 0, later.stderr
    expected = contents(small_store.path)
    for name, values in contents(path).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("shard", ["5/4", "4/4", "0/0", "1", "-1/4", "a/b", "1/2/3"])
def test_shard_that_is_none(small_calvin, tmp_path, shard, capsys):
    arguments = ["--root_dir", str(small_calvin), "--save_path", str(tmp_path / "a.zarr")]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, f"--shard={shard}", "--crop", "32"])
    assert caught.value.code == 2
    assert "expected I/N with I from 0 to N - 1" in capsys.readouterr().err


def test_no_workers(small_calvin, small_settings, tmp_path):
    with pytest.raises(UserError, match="num_workers=0: expected"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(), num_workers=0)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (_empty, "not a CALVIN dataset"),
        (lambda root: shutil.rmtree(root / "training" / "lang_annotations"), "--episodes play"),
        (lambda root: shutil.rmtree(root / "validation" / ".hydra"), "Copy .hydra/"),
    ],
)
def test_command_exits_with_the_message_and_no_traceback(calvin, tmp_path, spoil, message):
    spoil(calvin)
    result = _run(calvin, tmp_path / "a.zarr")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "a.zarr").exists()


class Malicious:
    """Unpickling it makes a folder, if anything lets it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_malicious_annotations_run_no_code(calvin, tmp_path):
    target = tmp_path / "executed"
    tree = {"language": Malicious(target)}
    annotations = calvin / "training" / "lang_annotations" / "auto_lang_ann.npy"
    np.save(annotations, np.array(tree, dtype=object), allow_pickle=True)
    result = _run(calvin, tmp_path / "a.zarr")
    assert result.returncode == 2
    assert "mkdir" in result.stderr
    assert not target.exists()


def test_killed_worker_is_told(small_calvin, small_settings, tmp_path, monkeypatch):
    # A worker that finds no memory is killed by the kernel; here it ends itself in its set-up.
    monkeypatch.setattr("langsteer.processes._start_worker", _die)
    with pytest.raises(UserError, match="fewer workers"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(), num_workers=2)


def _die(*_: object) -> None:
    os._exit(9)


def test_debug_script_asks_for_the_dataset(tmp_path):
    script = ROOT / "scripts" / "convert_calvin_debug.sh"
    environment = {k: v for k, v in os.environ.items() if k != "CALVIN_ROOT"}
    result = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 2
    assert "export CALVIN_ROOT" in result.stderr
