"""A depth image stored the wrong way round is found by what the other camera sees."""

import shutil

import numpy as np
import pytest

from langsteer.calvin.cameras import PIXEL_CENTRE
from langsteer.calvin.kinematics import JOINTS, gripper_camera_pose
from langsteer.data.agreement import turned_images
from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError

PIPELINE = ObservationPipeline(pixel_centre=PIXEL_CENTRE["tiny"])
CAMERAS = ("static", "gripper")


@pytest.fixture(scope="module")
def moments(shared):
    """Depth images of both cameras, and the gripper camera's pose, all over the sample."""
    found = []
    for path in sorted((shared / "calvin_sample").glob("*/episode_*.npz"))[::5]:
        with np.load(path) as frame:
            depth = {camera: frame[f"depth_{camera}"] for camera in CAMERAS}
            found.append((depth, gripper_camera_pose(frame["robot_obs"][JOINTS])))
    return found


def test_no_image_is_called_turned_that_is_not(moments):
    assert [turned_images(PIPELINE, *moment) for moment in moments] == [""] * len(moments)


@pytest.mark.parametrize("names", [("static",), ("gripper",), CAMERAS])
@pytest.mark.parametrize(("turn", "word"), [(np.transpose, "transposed"), (np.flipud, "upside")])
def test_a_turned_image_is_named_in_most_frames(moments, names, turn, word):
    said = [
        turned_images(PIPELINE, {n: turn(d) if n in names else d for n, d in depth.items()}, pose)
        for depth, pose in moments
    ]
    assert np.mean([line != "" for line in said]) > 0.85
    named = " and ".join(f"depth_{name}" for name in names)
    assert np.mean([line.startswith(f"{named} look") and word in line for line in said]) > 0.8


def test_images_of_no_world_pass(moments):
    random = np.random.default_rng(0)
    for depth, pose in moments:
        noise = {
            "static": random.uniform(2, 6, depth["static"].shape).astype(np.float32),
            "gripper": random.uniform(0.1, 1, depth["gripper"].shape).astype(np.float32),
        }
        flat = {name: np.full_like(image, image.mean()) for name, image in depth.items()}
        assert turned_images(PIPELINE, noise, pose) == turned_images(PIPELINE, flat, pose) == ""


def test_a_dataset_with_transposed_images_is_not_converted(shared, tmp_path):
    folder = shutil.copytree(shared / "calvin_sample" / "validation", tmp_path / "a" / "validation")
    for path in folder.glob("episode_*.npz"):
        with np.load(path) as frame:
            arrays = dict(frame)
        np.savez(path, **{**arrays, "depth_static": arrays["depth_static"].T})
    with pytest.raises(UserError, match=r"no episode is good(.|\n)*depth_static looks transposed"):
        convert(tmp_path / "a", tmp_path / "a.zarr", ConversionSettings(n_points=64), num_workers=1)
