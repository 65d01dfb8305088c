"""Recorded demonstrations: complete datasets, a function of the settings, whatever happens."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

import itertools

from langsteer.calvin.dataset import open_dataset, read_annotations, read_frame, read_ranges
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.scenes import scene_of
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.experts.collection import CollectionSettings, collect
from langsteer.experts.library import SKILLED_TASKS
from langsteer.experts.replay import replay

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = CollectionSettings(("open_drawer", "turn_on_led"), 1, 1, seed=3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "dataset"
    return path, collect(path, SETTINGS, num_workers=1)


def contents(path):
    """Every file of a dataset with its bytes, NumPy archives by their arrays."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                found[file.relative_to(path)] = {name: arrays[name].tobytes() for name in arrays}
        elif file.is_file():
            found[file.relative_to(path)] = file.read_bytes()
    return found


def test_a_recording_reads_as_a_calvin_dataset(recorded):
    path, summary = recorded
    splits = open_dataset(path)
    assert [split.name for split in splits] == ["training", "validation"]
    frames = 0
    for split in splits:
        ranges = read_ranges(split)
        assert len(ranges) == 2
        annotations = read_annotations(split)
        assert sorted(annotation.task for annotation in annotations) == sorted(SETTINGS.tasks)
        for annotation in annotations:
            assert annotation.instruction in phrasings(annotation.task)
            assert annotation.end - annotation.start in (64, *range(33, 49))
            assert any(
                first <= annotation.start and annotation.end <= last for first, last in ranges
            )
        for first, last in ranges:
            names = ["actions", "rel_actions", "robot_obs", "scene_obs", "depth_static"]
            rows = [
                read_frame(split.frame_path(number), names, split.config)
                for number in range(first, last + 1)
            ]
            frames += len(rows)
            for now, later in itertools.pairwise(rows):
                assert np.array_equal(now["actions"][:6], later["robot_obs"][:6])
                assert now["actions"][6] == later["robot_obs"][14]
                assert np.abs(now["rel_actions"]).max() <= 1
    assert frames == summary.frames


def test_recorded_actions_do_their_tasks_again(recorded):
    env = CalvinEnv("builtin")
    for split in open_dataset(recorded[0]):
        for annotation in read_annotations(split):
            assert scene_of(split, annotation.start) == "builtin"
            assert replay(split, annotation, env).held, annotation


def test_a_dataset_is_a_function_of_its_settings_whatever_the_number_of_workers(recorded, tmp_path):
    path, _ = recorded
    collect(tmp_path / "again", SETTINGS, num_workers=2)
    assert contents(tmp_path / "again") == contents(path)


class Clumsy:
    """A driver that lifts the hand, whatever it is told."""

    pipeline = ObservationPipeline()

    def begin(self, task, env, rng):
        self.told = task

    def act(self, env):
        return np.array([0, 0, 0.5, 0, 0, 0, 1.0])


def test_instructed_play_shows_each_task_from_beginning_to_end(tmp_path):
    settings = CollectionSettings(
        SKILLED_TASKS, 1, 0, play=True, chain_length=3, instructed=True, colours=True, seed=2
    )
    driven = dataclasses.replace(settings, driver="clumsy")
    summaries = [
        collect(tmp_path / "own", settings, num_workers=1),
        collect(tmp_path / "driven", driven, num_workers=1, make_driver=Clumsy),
    ]
    env = CalvinEnv("builtin")
    for name, summary in zip(("own", "driven"), summaries, strict=True):
        (split,) = open_dataset(tmp_path / name)
        annotations = read_annotations(split)
        assert len(annotations) == summary.achieved.total() > 0
        assert all(one.end - one.start >= 0 for one in annotations)
        frame = read_frame(split.frame_path(annotations[0].start), ["rgb_static"], split.config)
        assert frame["rgb_static"].std() > 10
    # Without a driver each window begins where its expert did, and shows the task by itself.
    (split,) = open_dataset(tmp_path / "own")
    held = [replay(split, one, env).held for one in read_annotations(split)]
    assert sum(held) >= len(held) - 1
    # What the driver did is recorded before the window that the expert's part is.
    assert summaries[1].frames > sum(one.end - one.start for one in annotations)


def test_a_driver_and_instructed_recordings_need_play():
    for wrong in ({"instructed": True}, {"play": True, "driver": "latest.ckpt"}):
        with pytest.raises(UserError, match="expected --play"):
            CollectionSettings(("open_drawer",), **wrong)
    with pytest.raises(UserError, match="expected --driver"):
        CollectionSettings(("open_drawer",), pointed=True)


def test_a_killed_run_goes_on_and_ends_in_the_same_dataset(recorded, tmp_path):
    path, _ = recorded
    process = _start_recording(tmp_path / "killed")
    _wait_for_a_frame(process, tmp_path / "killed")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert _is_gone(process.pid), "workers outlived their parent"
    collect(tmp_path / "killed", SETTINGS, num_workers=1)
    found, expected = contents(tmp_path / "killed"), contents(path)
    assert found.keys() == expected.keys()
    assert found == expected


def test_a_worker_that_dies_is_a_clear_error_and_leaves_no_orphan(tmp_path):
    process = _start_recording(tmp_path / "demos")
    _wait_for_a_frame(process, tmp_path / "demos")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    command_lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    workers = [pid for pid, line in command_lines.items() if b"spawn_main" in line]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: a worker process was killed" in said and "Traceback" not in said
    assert _is_gone(process.pid)


def _start_recording(path):
    """`scripts/collect_demos.py` with the settings above and two workers, in a process group."""
    arguments = ["--tasks", *SETTINGS.tasks, "--episodes_per_task", "1", "--seed", "3"]
    arguments += ["--validation_per_task", "1", "--save_path", str(path), "--num_workers", "2"]
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/collect_demos.py", *arguments],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_a_frame(process, path):
    while process.poll() is None and not list(path.rglob("*.npz")):
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


def _is_gone(group):
    """Whether no process of the group lives, half a minute later at the latest."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_finished_recording_is_left_alone_and_others_are_refused(recorded):
    path, summary = recorded
    assert collect(path, SETTINGS).frames == summary.frames
    with pytest.raises(UserError, match="seed"):
        collect(path, CollectionSettings(SETTINGS.tasks, 1, 1, seed=4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": ()}, "no tasks"),
        ({"tasks": ("open_dawer",)}, "open_drawer"),
        ({"episodes_per_task": 0}, "episodes_per_task=0: expected a whole number from 1 on"),
        ({"validation_per_task": -1}, "validation_per_task=-1"),
        ({"play": True, "chain_length": 0}, "chain_length=0"),
        ({"scene": "E"}, "scene"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_settings_are_refused(changes, words, tmp_path):
    with pytest.raises(UserError, match=words):
        collect(tmp_path / "demos", dataclasses.replace(SETTINGS, **changes), num_workers=1)


def test_a_run_killed_while_it_throws_the_old_away_goes_on_with_the_same_command(
    recorded, tmp_path, monkeypatch
):
    def die_half_way(folder, **_):
        (folder / ".collection" / "settings.json").unlink()
        raise KeyboardInterrupt

    path = shutil.copytree(recorded[0], tmp_path / "demos")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", die_half_way)
        collect(path, SETTINGS, overwrite=True)
    collect(path, SETTINGS, num_workers=1, overwrite=True)
    assert contents(path).keys() == contents(recorded[0]).keys()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demos").write_text("precious")
    with pytest.raises(UserError, match="a file"):
        collect(tmp_path / "demos", SETTINGS, overwrite=True)


def test_a_folder_with_other_things_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        collect(tmp_path, SETTINGS, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
