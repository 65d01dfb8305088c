"""Geometry: images become points where the things are."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.calvin.cameras import (
    GRIPPER_CAMERA,
    PIXEL_CENTRE,
    STATIC_CAMERA,
    T_TCP_OPTICAL,
    centre_crop,
    deproject,
    rotation_from_euler,
)
from langsteer.calvin.kinematics import camera_pose_from_tcp, gripper_camera_pose, tcp_pose

TABLE_TOP = 0.44


def test_poses_equal_those_measured_on_the_simulator():
    static = [
        [0.72324, 0.03026, -0.68993, 2.87146],
        [0.51412, -0.69061, 0.50866, -2.16660],
        [-0.46108, -0.72259, -0.51504, 2.55516],
    ]
    gripper = [
        [-0.00080, -0.96356, 0.26750, -0.10000],
        [1.00000, -0.00077, 0.00021, 0.00000],
        [0.00000, 0.26750, 0.96356, -0.14000],
    ]
    np.testing.assert_allclose(STATIC_CAMERA.world_from_optical()[:3], static, atol=1e-5)
    np.testing.assert_allclose(T_TCP_OPTICAL[:3], gripper, atol=1e-5)
    assert STATIC_CAMERA.focal == pytest.approx(1143.005, abs=1e-3)
    assert GRIPPER_CAMERA.focal == pytest.approx(54.7355, abs=1e-4)


def test_forward_kinematics_gives_the_measured_reset_pose():
    joints = np.array(
        [-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866]
    )
    pose = tcp_pose(joints)
    np.testing.assert_allclose(pose[:3, 3], [0.02586889, -0.2313129, 0.5712808], atol=1e-6)
    euler = (3.09045411, -0.02908596, 1.50013585)
    np.testing.assert_allclose(pose[:3, :3], rotation_from_euler(euler), atol=1e-5)


def test_forward_kinematics_of_a_batch_equals_that_of_each():
    joints = np.random.default_rng(0).uniform(-1.5, 1.5, (5, 7))
    np.testing.assert_array_equal(tcp_pose(joints), np.stack([tcp_pose(row) for row in joints]))


@given(st.floats(0.1, 10), st.integers(0, 159), st.integers(0, 159))
def test_deprojected_pixel_projects_back_to_where_it_was_sampled(depth, u, v):
    world_from_optical = STATIC_CAMERA.world_from_optical()
    image = np.full((160, 160), depth, dtype=np.float32)
    point = deproject(image, STATIC_CAMERA, world_from_optical, (0.5, 0.5), crop=160)[:, v, u]
    x, y, z, _ = np.linalg.inv(world_from_optical) @ [*point.astype(np.float64), 1.0]
    assert z == pytest.approx(depth, abs=2e-5)
    assert STATIC_CAMERA.focal * x / z + 100 == pytest.approx(20 + u + 0.5, abs=0.02)
    assert STATIC_CAMERA.focal * y / z + 100 == pytest.approx(20 + v + 0.5, abs=0.02)


def test_cropped_image_gives_the_points_of_the_whole_image():
    depth = np.random.default_rng(0).uniform(3, 6, (200, 200)).astype(np.float32)
    pose = STATIC_CAMERA.world_from_optical()
    whole = deproject(depth, STATIC_CAMERA, pose, (0.5, 0.5))
    part = deproject(centre_crop(depth, STATIC_CAMERA, 160), STATIC_CAMERA, pose, (0.5, 0.5), 160)
    np.testing.assert_array_equal(part, whole[:, 20:180, 20:180])


def _clouds(frame: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Points (3, M) of both cameras of a frame of the sample (TinyRenderer)."""
    centre = PIXEL_CENTRE["tiny"]
    static, gripper = (
        STATIC_CAMERA.world_from_optical(),
        gripper_camera_pose(frame["robot_obs"][7:14]),
    )
    return {
        "static": deproject(frame["depth_static"], STATIC_CAMERA, static, centre).reshape(3, -1),
        "gripper": deproject(frame["depth_gripper"], GRIPPER_CAMERA, gripper, centre).reshape(
            3, -1
        ),
    }


def test_table_top_is_flat_and_both_cameras_agree(shared):
    heights: dict[str, list[np.ndarray]] = {"static": [], "gripper": []}
    for path in sorted((shared / "calvin_sample" / "training").glob("episode_*.npz"))[::20]:
        with np.load(path) as frame:
            clouds = _clouds(frame)
        for camera, (x, y, z) in clouds.items():
            # In front of the blocks' shelf and behind the drawer; blocks are 4 cm high.
            table = (abs(x) < 0.4) & (y > -0.15) & (y < 0.0) & (abs(z - TABLE_TOP) < 0.01)
            heights[camera].append(z[table])
    pooled = {camera: np.concatenate(values) for camera, values in heights.items()}
    for camera, z in pooled.items():
        assert len(z) > 1000, camera
        assert np.median(np.abs(z - TABLE_TOP)) < 0.3e-3, camera
    assert abs(np.median(pooled["static"]) - np.median(pooled["gripper"])) < 0.5e-3


def test_camera_pose_from_the_tcp_is_within_two_millimetres_of_that_from_the_joints(shared):
    for path in sorted((shared / "calvin_sample" / "training").glob("episode_*.npz"))[::50]:
        with np.load(path) as frame:
            robot_obs = frame["robot_obs"]
        shift = camera_pose_from_tcp(robot_obs) - gripper_camera_pose(robot_obs[7:14])
        assert np.linalg.norm(shift[:3, 3]) < 2e-3
