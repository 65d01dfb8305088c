"""Invariants of the observation pipeline."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.calvin.kinematics import gripper_camera_pose
from langsteer.data.pointcloud import (
    NoPointsError,
    ObservationPipeline,
    farthest_point_indices,
    point_cloud,
)
from langsteer.errors import UserError

TINY = ObservationPipeline(pixel_centre=(0.0, 1.0))


@pytest.fixture(scope="module")
def frame(shared):
    with np.load(shared / "calvin_sample" / "training" / "episode_0358520.npz") as file:
        return {
            "depth": {"static": file["depth_static"], "gripper": file["depth_gripper"]},
            "colour": {"static": file["rgb_static"], "gripper": file["rgb_gripper"]},
            "pose": gripper_camera_pose(file["robot_obs"][7:14]),
        }


def test_cloud_has_its_points_in_the_box_and_colours_in_range(frame):
    cloud = point_cloud(TINY, frame["depth"], frame["pose"], frame["colour"])
    assert cloud.shape == (2048, 6)
    assert cloud.dtype == np.float32
    for axis, (low, high) in enumerate(TINY.box):
        assert cloud[:, axis].min() >= np.float32(low)
        assert cloud[:, axis].max() <= np.float32(high)
    assert cloud[:, 3:].min() >= 0
    assert cloud[:, 3:].max() <= 1
    assert len(np.unique(cloud[:, :3], axis=0)) == 2048


def test_cloud_is_deterministic_and_the_same_without_colour(frame):
    first = point_cloud(TINY, frame["depth"], frame["pose"], frame["colour"])
    again = point_cloud(TINY, frame["depth"], frame["pose"], frame["colour"])
    bare = point_cloud(TINY, frame["depth"], frame["pose"])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:, :3], bare)


def test_static_image_may_come_cropped(frame):
    cropped = {**frame["depth"], "static": frame["depth"]["static"][20:180, 20:180]}
    np.testing.assert_array_equal(
        point_cloud(TINY, cropped, frame["pose"]), point_cloud(TINY, frame["depth"], frame["pose"])
    )


def test_each_camera_gives_half_of_the_points(frame):
    cloud = point_cloud(TINY, frame["depth"], frame["pose"])
    for index, camera in enumerate(TINY.cameras):
        alone = dataclasses.replace(TINY, cameras=(camera,), n_points=1024)
        half = point_cloud(alone, frame["depth"], frame["pose"])
        np.testing.assert_array_equal(cloud[1024 * index : 1024 * (index + 1)], half)


def test_a_camera_that_sees_little_gives_all_and_the_other_fills_up(frame):
    patch = np.full((84, 84), np.nan, np.float32)
    patch[:10] = frame["depth"]["gripper"][:10]
    depth = {**frame["depth"], "gripper": patch}
    gripper_only = dataclasses.replace(TINY, cameras=("gripper",), n_points=840)
    seen = np.unique(point_cloud(gripper_only, depth, frame["pose"]), axis=0)
    cloud = point_cloud(TINY, depth, frame["pose"])
    assert 0 < len(seen) <= 840
    assert len(np.unique(cloud, axis=0)) == 2048
    np.testing.assert_array_equal(np.unique(cloud[-len(seen) :], axis=0), seen)


def test_fewer_points_than_asked_repeat_in_order(frame):
    slice_of_table = ((-0.5, 0.5), (-0.05, 0.0), (0.439, 0.441))
    small = dataclasses.replace(TINY, box=slice_of_table)
    cloud = point_cloud(small, frame["depth"], frame["pose"])
    distinct = len(np.unique(cloud, axis=0))
    assert 0 < distinct < 2048
    np.testing.assert_array_equal(cloud, np.resize(cloud[:distinct], cloud.shape))


def test_empty_box_is_an_error(frame):
    empty = dataclasses.replace(TINY, box=((0.0, 0.01), (-0.15, -0.14), (0.84, 0.85)))
    with pytest.raises(NoPointsError):
        point_cloud(empty, frame["depth"], frame["pose"])


def test_image_of_another_size_is_never_resized(frame):
    with pytest.raises(ValueError, match=r"100, 100"):
        point_cloud(
            TINY, {**frame["depth"], "static": np.ones((100, 100), np.float32)}, frame["pose"]
        )


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_sample_is_the_exact_greedy_one(count, surplus, seed):
    points = np.random.default_rng(seed).normal(size=(count + surplus, 3)).astype(np.float32)
    chosen = farthest_point_indices(points, count)
    distance = np.full(len(points), np.inf)
    for index, point in enumerate(chosen):
        if index:
            assert distance[point] == pytest.approx(distance.max(), rel=1e-4)
        distance = np.minimum(distance, ((points - points[point]) ** 2).sum(axis=1))
    assert len(set(chosen)) == count


def test_parameters_survive_json():
    pipeline = dataclasses.replace(TINY, n_points=512, cameras=("static",), static_crop=120)
    assert ObservationPipeline.from_dict(json.loads(json.dumps(pipeline.to_dict()))) == pipeline
    assert pipeline.to_dict() == json.loads(json.dumps(pipeline.to_dict()))


def test_incompatible_pipelines_are_told_apart_and_the_differences_named():
    TINY.check_compatible(ObservationPipeline())
    other = dataclasses.replace(
        TINY, n_points=1024, gripper=dataclasses.replace(TINY.gripper, fov=60.0)
    )
    with pytest.raises(
        UserError, match=r"gripper.fov: 75.0 against 60.0\n  n_points: 2048 against"
    ):
        TINY.check_compatible(other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cameras": ()},
        {"cameras": ("front",)},
        {"cameras": ("static", "static")},
        {"n_points": 1},
        {"box": ((1, 0), (0, 1), (0, 1))},
        {"static_crop": 201},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(UserError):
        ObservationPipeline(**wrong)


def test_unknown_parameter_is_refused():
    with pytest.raises(UserError, match="colour_space"):
        ObservationPipeline.from_dict({**TINY.to_dict(), "colour_space": "lab"})
