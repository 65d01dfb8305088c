"""What a conversion writes, and that it is the same whoever writes it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from langsteer.calvin.kinematics import gripper_camera_pose
from langsteer.data.conversion import convert
from langsteer.data.inspection import check_store
from langsteer.data.plan import make_plan
from langsteer.data.pointcloud import point_cloud
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.resumable import Share

# What is in it


def test_sample_becomes_what_the_guide_says(shared, sample_store):
    store = sample_store
    n, k = 439, 9
    shapes = {name: tuple(store.array(name).shape) for name in store.array_names}
    assert shapes == {
        "img": (n, 160, 160, 3),
        "point_cloud": (n, 2048, 6),
        "depth": (n, 160, 160),
        "action": (n, 7),
        "state": (n, 15),
    }
    assert store.episode_ends.shape == (k,)
    assert store.episodes.split.tolist() == ["training"] * 7 + ["validation"] * 2
    assert store.episodes.task[0] == "open_drawer"
    assert store.episodes.instruction[0] == "pull the drawer"
    assert store.pipeline.pixel_centre == (0.0, 1.0)  # use_egl is false in the sample


def test_each_row_is_its_source_frame(shared, sample_store):
    store = sample_store
    images, depths = store.read("img"), store.read("depth")
    clouds, states, actions = (store.read(name) for name in ("point_cloud", "state", "action"))
    for episode, start in enumerate(store.episode_starts):
        offset = int(store.episode_ends[episode] - start) - 1
        number = int(store.episodes.first_frame[episode]) + offset
        folder = shared / "calvin_sample" / str(store.episodes.split[episode])
        with np.load(folder / f"episode_{number:07d}.npz") as frame:
            row = start + offset
            np.testing.assert_array_equal(images[row], frame["rgb_static"][20:180, 20:180])
            np.testing.assert_array_equal(depths[row], frame["depth_static"][20:180, 20:180])
            np.testing.assert_array_equal(states[row], frame["robot_obs"].astype(np.float32))
            np.testing.assert_array_equal(actions[row], frame["rel_actions"].astype(np.float32))
            cloud = point_cloud(
                store.pipeline,
                {"static": frame["depth_static"], "gripper": frame["depth_gripper"]},
                gripper_camera_pose(frame["robot_obs"][7:14]),
                {"static": frame["rgb_static"], "gripper": frame["rgb_gripper"]},
            )
            np.testing.assert_array_equal(clouds[row], cloud)


def test_windows_that_overlap_share_a_group_and_no_others(sample_store):
    store = sample_store
    frames = [
        {(split, first + i) for i in range(end - start)}
        for split, first, start, end in zip(
            store.episodes.split.tolist(),
            store.episodes.first_frame.tolist(),
            store.episode_starts.tolist(),
            store.episode_ends.tolist(),
            strict=True,
        )
    ]
    group = store.episodes.group
    for i, mine in enumerate(frames):
        for j, theirs in enumerate(frames):
            if mine & theirs:
                assert group[i] == group[j]
    # [358483, 358621) is a chain of overlaps, [358660, 358739) another; validation has 553635 in
    # two windows.
    assert group.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_repeated_annotations_are_stored_once(small_store):
    assert small_store.episodes.first_frame.tolist() == [10, 25, 50, 70, 203]
    assert len(small_store.attributes["conversion"]["left_out"]) == 1


def test_tasks_splits_and_number_of_episodes_are_chosen(small_calvin, small_settings, tmp_path):
    def first_frames(**changes):
        plan = make_plan(small_calvin, small_settings(**changes))
        return plan.table.first_frame.tolist()

    assert first_frames(tasks=("open_drawer",)) == [10, 50, 203]
    assert first_frames(tasks=("open_drawer", "turn_on_led"), splits=("training",)) == [10, 50, 70]
    assert first_frames(max_episodes=2) == [10, 25]
    assert first_frames(splits=("validation",)) == [203]


def test_several_datasets_are_mixed_into_one_store(
    small_calvin, small_settings, converted, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(small_calvin, other)
    settings = small_settings()
    alone = converted(small_calvin, tmp_path / "a.zarr", settings)
    mixed = converted([small_calvin, other], tmp_path / "b.zarr", settings, num_workers=2)
    assert mixed.n_frames == 2 * alone.n_frames
    assert mixed.episodes.source.tolist() == [0] * len(alone.episodes) + [1] * len(alone.episodes)
    # The same frame numbers in two datasets are different frames.
    assert len(np.unique(mixed.episodes.group)) == 2 * len(np.unique(alone.episodes.group))
    for half in (slice(0, alone.n_frames), slice(alone.n_frames, None)):
        for name in alone.array_names:
            np.testing.assert_array_equal(
                mixed.array(name)[half].read().result(), alone.array(name).read().result()
            )
    assert check_store(mixed, [small_calvin, other]) == []
    assert check_store(mixed, [small_calvin]) != []


def test_play_episodes_are_whole_recordings(small_calvin, small_settings, converted, tmp_path):
    shutil.copytree(small_calvin, tmp_path / "calvin")
    shutil.rmtree(tmp_path / "calvin" / "training" / "lang_annotations")
    settings = small_settings(episodes="play")
    store = converted(tmp_path / "calvin", tmp_path / "a.zarr", settings)
    assert np.diff(store.episode_ends, prepend=0).tolist() == [52, 49, 21]
    assert store.episodes.first_frame.tolist() == [10, 62, 200]
    assert set(store.episodes.task.tolist()) == {""}
    assert store.episodes.group.tolist() == [0, 1, 2]


def test_labelled_episodes_are_the_recordings_with_the_task_that_they_alone_show(
    make_calvin, small_settings, converted, tmp_path
):
    windows = [
        (12, 40, "open_drawer", "open the drawer"),  # twice the same task: its first sentence
        (15, 50, "open_drawer", "pull the drawer out"),
        (64, 80, "turn_on_led", "light the led"),
        (70, 101, "open_drawer", "open the drawer"),  # two tasks
        (125, 160, "turn_on_led", "beyond the end"),
    ]
    episodes = [(10, 50), (62, 100), (120, 150)]
    root = make_calvin(tmp_path / "calvin", {"training": (episodes, windows)})
    settings = small_settings(episodes="labelled", frames_per_shard=32)
    labelled, play = (
        converted(root, tmp_path / kind, replace(settings, episodes=kind))
        for kind in ("labelled", "play")
    )
    assert labelled.episodes.task.tolist() == ["open_drawer", "", ""]
    assert labelled.episodes.instruction.tolist() == ["open the drawer", "", ""]
    for name in ("state", "action", "point_cloud"):
        np.testing.assert_array_equal(labelled.read(name), play.read(name))
    np.testing.assert_array_equal(labelled.episode_ends, play.episode_ends)
    plan = make_plan(root, replace(settings, tasks=("open_drawer",)))
    assert plan.table.first_frame.tolist() == [10]


def test_skipped_arrays_change_nothing_else(
    small_calvin, small_settings, small_store, converted, contents, tmp_path
):
    settings = small_settings(skip=("img", "depth"))
    store = converted(small_calvin, tmp_path / "a.zarr", settings)
    assert store.array_names == ("point_cloud", "action", "state")
    whole = contents(small_store.path)
    np.testing.assert_equal(
        contents(store.path), {k: v for k, v in whole.items() if k not in settings.skip}
    )


def test_one_camera_alone(small_calvin, small_settings, small_store, converted, tmp_path):
    settings = small_settings(cameras=("gripper",), n_points=32)
    store = converted(small_calvin, tmp_path / "a.zarr", settings)
    np.testing.assert_array_equal(
        store.read("point_cloud"), small_store.read("point_cloud")[:, 32:]
    )


# The same, whoever writes it


@pytest.mark.parametrize("workers", [2, 4])
def test_number_of_workers_changes_nothing(
    small_calvin, small_settings, small_store, contents, tmp_path, workers
):
    summary = convert(small_calvin, tmp_path / "a.zarr", small_settings(), num_workers=workers)
    assert summary.frames == small_store.n_frames
    np.testing.assert_equal(contents(summary.path), contents(small_store.path))


def test_three_jobs_fill_one_store(small_calvin, small_settings, small_store, contents, tmp_path):
    path = tmp_path / "a.zarr"
    for job in (2, 0):
        summary = convert(small_calvin, path, small_settings(), num_workers=1, share=Share(job, 3))
        assert summary.store is None
        assert summary.shards_missing > 0
        assert not path.exists()
    assert convert(small_calvin, path, small_settings(), num_workers=1, share=Share(1, 3)).store
    np.testing.assert_equal(contents(path), contents(small_store.path))
    again = convert(small_calvin, path, small_settings(), num_workers=1, share=Share(2, 3))
    assert again.store is not None
    assert again.frames == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_zip_becomes_the_store_of_its_folder(
    small_calvin, small_settings, small_store, contents, tmp_path, workers
):
    archive = Path(shutil.make_archive(str(tmp_path / "d"), "zip", small_calvin.parent, "calvin"))
    path = tmp_path / "a.zarr"
    # Begun with the folder, ended with the zip.
    convert(small_calvin, path, small_settings(), num_workers=1, share=Share(0, 3))
    convert(archive, path, small_settings(), num_workers=workers)
    np.testing.assert_equal(contents(path), contents(small_store.path))
    assert check_store(open_store(path), archive) == []


def test_frames_per_file_change_the_files_and_not_the_content(
    small_calvin, small_settings, small_store, converted, contents, tmp_path
):
    settings = small_settings(frames_per_shard=None)
    store = converted(small_calvin, tmp_path / "a.zarr", settings)
    assert len(list((store.path / "data" / "state").glob("c.*"))) == 2  # 64 and 26 rows
    np.testing.assert_equal(contents(store.path), contents(small_store.path))


def test_jobs_that_run_at_once_agree(
    small_calvin, conversion_command, small_store, contents, tmp_path
):
    path = tmp_path / "a.zarr"
    commands = [("--shard", "0/2"), ("--shard", "1/2"), ("--shard", "0/1"), ("--shard", "0/1")]
    processes = [
        subprocess.Popen(
            conversion_command(small_calvin, path, "--overwrite", "--num_workers", "1", *options),
            stderr=subprocess.PIPE,
        )
        for options in commands
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    np.testing.assert_equal(contents(path), contents(small_store.path))


# An existing store


def test_existing_store_is_not_harmed_without_overwrite(
    small_calvin, small_settings, small_store, contents, tmp_path
):
    path = tmp_path / "a.zarr"
    convert(small_calvin, path, small_settings(), num_workers=1)
    for settings in (small_settings(), small_settings(max_episodes=1)):
        with pytest.raises(UserError, match="--overwrite replaces it"):
            convert(small_calvin, path, settings, num_workers=1)
    np.testing.assert_equal(contents(path), contents(small_store.path))


def test_old_store_stays_whole_until_the_new_one_is(
    small_calvin, small_settings, small_store, contents, tmp_path
):
    path = tmp_path / "a.zarr"
    convert(small_calvin, path, small_settings(), num_workers=1)
    other = small_settings(max_episodes=1)
    convert(small_calvin, path, other, overwrite=True, num_workers=1, share=Share(0, 2))
    np.testing.assert_equal(contents(path), contents(small_store.path))
    convert(small_calvin, path, other, overwrite=True, num_workers=1, share=Share(1, 2))
    assert len(open_store(path).episodes) == 1


def test_unfinished_store_of_other_settings_is_kept_without_overwrite(
    small_calvin, small_settings, converted, tmp_path
):
    path = tmp_path / "a.zarr"
    convert(small_calvin, path, small_settings(), num_workers=1, share=Share(0, 2))
    with pytest.raises(UserError, match="unfinished conversion of other settings"):
        convert(small_calvin, path, small_settings(max_episodes=1), num_workers=1)
    assert converted(small_calvin, path, small_settings()).n_frames == 90


@pytest.mark.parametrize("where", ["a.zarr", "a.zarr.partial"])
def test_folder_that_is_no_store_is_never_deleted(small_calvin, small_settings, tmp_path, where):
    (tmp_path / where).mkdir()
    (tmp_path / where / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a"):
        convert(small_calvin, tmp_path / "a.zarr", small_settings(), overwrite=True, num_workers=1)
    assert (tmp_path / where / "thesis.tex").read_text() == "precious"


def test_annotations_that_changed_begin_anew(small_calvin, small_settings, tmp_path):
    shutil.copytree(small_calvin, tmp_path / "calvin")
    path = tmp_path / "a.zarr"
    convert(tmp_path / "calvin", path, small_settings(), num_workers=1, share=Share(0, 2))
    annotations = tmp_path / "calvin" / "training" / "lang_annotations" / "auto_lang_ann.npy"
    shutil.copy(small_calvin / "validation" / "lang_annotations" / "auto_lang_ann.npy", annotations)
    with pytest.raises(UserError, match="other settings or data"):
        convert(tmp_path / "calvin", path, small_settings(splits=("validation",)), num_workers=1)


def test_command_of_the_guide_prints_a_summary(small_calvin, conversion_command, tmp_path):
    result = subprocess.run(
        conversion_command(small_calvin, tmp_path / "a.zarr", "--overwrite", "--num_workers", "1"),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert "90 frames converted" in result.stdout
    assert "5 episodes (4 training, 1 validation)" in result.stdout
    assert "3 tasks: close_drawer 1, open_drawer 3, turn_on_led 1" in result.stdout
    assert "kB a frame" in result.stdout
    assert "converting: 100%" in result.stderr


MEASURED = """
import resource, sys
from langsteer.data.convert_command import main
main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_dataset(small_calvin, tmp_path):
    peaks = {}
    frames = sorted((small_calvin / "validation").glob("episode_*.npz"))
    for count in (200, 800):
        folder = tmp_path / str(count) / "training"
        shutil.copytree(small_calvin / "validation" / ".hydra", folder / ".hydra")
        np.save(folder / "ep_start_end_ids.npy", np.array([[0, count - 1]]))
        for number in range(count):
            os.link(frames[number % len(frames)], folder / f"episode_{number:07d}.npz")
        options = ["--root_dir", str(folder.parent), "--save_path", str(tmp_path / f"{count}.zarr")]
        options += ["--episodes", "play", "--num_workers", "1", "--crop", "32"]
        options += ["--frames_per_file", "100"]
        output = subprocess.run(
            [sys.executable, "-c", MEASURED, *options], capture_output=True, text=True, check=True
        ).stdout
        peaks[count] = int(output.split()[-1])
    assert peaks[800] - peaks[200] < 3000, peaks  # kB; one shard takes 7 MB
