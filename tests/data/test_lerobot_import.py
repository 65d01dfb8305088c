"""LeRobot datasets of other people: what they have comes in, what they lack is named."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from langsteer.calvin.cameras import STATIC_CAMERA
from langsteer.calvin.dataset import open_dataset, read_annotations, read_frame
from langsteer.data import lerobot_format as lerobot
from langsteer.data.lerobot_export import export
from langsteer.data.lerobot_features import cameras_of, choose, parse
from langsteer.data.lerobot_import import import_dataset
from langsteer.data.lerobot_sources import CalvinSource
from langsteer.data.plan import make_plan
from langsteer.errors import UserError

THEIRS = {
    lerobot.IMAGES["static"]: "observation.images.top",
    lerobot.DEPTHS["static"]: "observation.images.top_depth",
    lerobot.STATE: "state",
}
NAMED = {
    "rgb_static": "observation.images.top",
    "depth_static": "observation.images.top_depth",
    "robot_obs": "state",
    "intrinsics_static": "k",
    "pose_static": "pose",
}
DROPPED = (lerobot.IMAGES["gripper"], lerobot.DEPTHS["gripper"], lerobot.SCENE)


@pytest.fixture
def source(small_calvin, small_settings):
    return CalvinSource(make_plan(small_calvin, small_settings()))


def intrinsics(camera, dx, dy):
    x, y = camera.centre
    return np.array([[camera.focal, 0, x - dx], [0, camera.focal, y - dy], [0, 0, 1]])


@pytest.fixture
def foreign(source, tmp_path):
    """Our export under other names, without gripper camera, scene and all that only we write."""
    path = tmp_path / "foreign"
    export(source, path)
    (path / lerobot.CALVIN_PATH).unlink()
    static = source.plan.pipeline.static
    extra = {"k": intrinsics(static, 0, 1), "pose": static.world_from_optical()}
    for file in (path / "data").rglob("*.parquet"):
        table = pq.read_table(file).drop_columns(list(DROPPED))
        table = table.rename_columns([THEIRS.get(name, name) for name in table.column_names])
        for name, value in extra.items():
            table = table.append_column(name, pa.array([value.tolist()] * len(table)))
        pq.write_table(table, file)
    for file in (path / "meta" / "episodes").rglob("*.parquet"):
        table = pq.read_table(file)
        ours = [name for name in table.column_names if name.startswith("calvin/")]
        pq.write_table(table.drop_columns(ours), file)
    change_info(path, lambda features: _renamed(features, extra))
    return path


def _renamed(features, extra):
    kept = {THEIRS.get(key, key): one for key, one in features.items() if key not in DROPPED}
    shapes = {name: list(value.shape) for name, value in extra.items()}
    return kept | {
        name: {"dtype": "float64", "shape": shape, "names": None} for name, shape in shapes.items()
    }


def change_info(path, change):
    file = path / lerobot.INFO_PATH
    info = json.loads(file.read_text())
    file.write_text(json.dumps(info | {"features": change(info["features"])}))


def test_foreign_dataset_makes_the_store_that_its_frames_make(
    foreign, small_calvin, small_settings, converted, contents, tmp_path
):
    import_dataset(foreign, tmp_path / "back", NAMED)
    found, expected = (
        contents(converted(root, tmp_path / name, small_settings(cameras=("static",))).path)
        for name, root in (("one.zarr", tmp_path / "back"), ("other.zarr", small_calvin))
    )
    for name in ("img", "depth", "action", "ends"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["point_cloud"], expected["point_cloud"], atol=1e-4)
    assert found["episodes"]["instruction"] == expected["episodes"]["instruction"]


def test_absolute_actions_and_the_states_motion_become_relative_ones(foreign, source, tmp_path):
    for file in (foreign / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        states = np.array(table["state"].to_pylist())
        reached = np.vstack([states[1:], states[-1:]])[:, [0, 1, 2, 3, 4, 5, 14]] + [2, *[0] * 6]
        place = table.column_names.index("action")
        table = table.set_column(place, "action", pa.array(reached.tolist()))
        pq.write_table(table, file)
    with pytest.raises(UserError, match="--features actions=action; otherwise rel_actions=none"):
        import_dataset(foreign, tmp_path / "a", NAMED)
    for name, keys in (("b", {"actions": "action"}), ("c", {"rel_actions": "none"})):
        import_dataset(foreign, tmp_path / name, NAMED | keys)
    (b, *_), (c, *_) = (open_dataset(tmp_path / name) for name in "bc")
    vectors = ("rel_actions", "actions", "robot_obs")
    absolute, moved = (read_frame(one.frame_path(3), vectors, one.config) for one in (b, c))
    assert absolute["rel_actions"][0] == 1 and abs(moved["rel_actions"][0]) < 1
    np.testing.assert_allclose(absolute["actions"][0], moved["actions"][0] + 2, atol=1e-6)


def test_windows_follow_the_sentences_of_the_frames(foreign, tmp_path):
    for file in (foreign / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        told = np.where(np.array(table["frame_index"]) < 4, 0, np.array(table["task_index"]))
        place = table.column_names.index("task_index")
        pq.write_table(table.set_column(place, "task_index", pa.array(told)), file)
    tasks = pq.read_table(foreign / lerobot.TASKS_PATH)
    words = ["Open the drawer", *[f"wave {n}" for n in range(1, len(tasks))]]
    place = tasks.column_names.index("task")
    pq.write_table(tasks.set_column(place, "task", pa.array(words)), foreign / lerobot.TASKS_PATH)
    import_dataset(foreign, tmp_path / "back", NAMED)
    first, second = read_annotations(open_dataset(tmp_path / "back")[0])[1:3]
    assert (first.end - first.start, first.task) == (4, "open_drawer")
    assert second.start == first.end and second.task == second.instruction.replace(" ", "_")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"rgb_static": "observation.front"}, "no rgb_static: 'observation.front' is missing.*top"),
        ({"depth_static": "none"}, "no depth_static: left out.*--features depth_static=KEY"),
        ({"depth_static": "observation.images.top"}, "expected an image of 1 channel"),
        ({"robot_obs": "action"}, r"action \(robot_obs\) has shape \(7,\), CALVIN's has \(15,\)"),
        ({"pose_static": "none"}, "nothing tells the cameras: pose_static missing"),
        ({"scene_obs": "state"}, "--features scene_obs=none"),
    ],
)
def test_what_a_dataset_lacks_is_named(foreign, tmp_path, keys, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        import_dataset(foreign, tmp_path / "back", NAMED | keys)
    assert str(foreign) in str(caught.value) and not (tmp_path / "back").exists()


def test_cameras_of_a_file_must_be_those_of_the_images(foreign, small_calvin, tmp_path):
    right = small_calvin / "training" / ".hydra" / "merged_config.yaml"
    names = NAMED | {"pose_static": "none"}
    import_dataset(foreign, tmp_path / "back", names, right)
    wrong = tmp_path / "wrong.yaml"
    tree = yaml.safe_load(right.read_text())
    tree["cameras"]["static"]["height"] = 7
    wrong.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"wrong.yaml.*have 7 x 40"):
        import_dataset(foreign, tmp_path / "other", names, wrong)


def test_camera_that_calvins_format_lacks_is_refused():
    features = {"d": lerobot.depth(200, 200), "c": lerobot.image(200, 200), "s": lerobot.vector(15)}
    chosen = choose(features, {"rgb_static": "c", "depth_static": "d", "robot_obs": "s"})
    good = {
        "intrinsics_static": intrinsics(STATIC_CAMERA, 0.5, 0.5),
        "pose_static": STATIC_CAMERA.world_from_optical(),
    }
    tree: Any = cameras_of(chosen, features, good)
    assert tree["cameras"]["static"]["fov"] == pytest.approx(STATIC_CAMERA.fov)
    for name, row, column, complaint in (
        ("intrinsics_static", 0, 2, "principal point"),
        ("intrinsics_static", 0, 0, "focal lengths"),
        ("pose_static", 0, 0, "rotation"),
    ):
        bad = {key: value.copy() for key, value in good.items()}
        bad[name][row, column] += 40
        with pytest.raises(UserError, match=complaint):
            cameras_of(chosen, features, bad)


def test_unknown_name_is_refused():
    assert parse(["rgb_static=a.b"]) == {"rgb_static": "a.b"}
    with pytest.raises(UserError, match="did you mean rgb_static"):
        parse(["rgb_statik=a"])


def test_dataset_of_lerobots_own_writer_comes_in(source, tmp_path):
    python = os.environ.get("LEROBOT_PYTHON")
    if python is None:
        pytest.skip("LEROBOT_PYTHON names no Python that has LeRobot")
    frames = [source.frame(row) for row in range(20)]
    static = source.plan.pipeline.static
    depth = np.stack([frame[lerobot.DEPTHS["static"]] for frame in frames])
    np.savez(
        tmp_path / "in.npz",
        colour=np.stack([frame[lerobot.IMAGES["static"]] for frame in frames]),
        depth=np.round(depth * 1000).astype(np.uint16),
        state=np.stack([frame[lerobot.STATE] for frame in frames]).astype(np.float32),
        k=intrinsics(static, 0, 1).astype(np.float32),
        pose=static.world_from_optical().astype(np.float32),
    )
    writer = Path(__file__).with_name("lerobot_writer.py")
    subprocess.run(
        [python, str(writer), str(tmp_path / "in.npz"), str(tmp_path / "theirs")],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    import_dataset(tmp_path / "theirs", tmp_path / "back", NAMED | {"rel_actions": "none"})
    (split,) = open_dataset(tmp_path / "back")
    for number, frame in enumerate(frames[:10]):
        names = ("rgb_static", "depth_static", "robot_obs")
        found = read_frame(split.frame_path(number), names, split.config)
        np.testing.assert_array_equal(found["rgb_static"], frame[lerobot.IMAGES["static"]])
        np.testing.assert_allclose(found["depth_static"], depth[number], atol=6e-4)
        np.testing.assert_allclose(found["robot_obs"], frame[lerobot.STATE], atol=1e-6)
    assert {one.task for one in read_annotations(split)} == {"open_drawer"}
