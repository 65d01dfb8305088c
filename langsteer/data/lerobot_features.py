"""Match the features of a LeRobot dataset to CALVIN's arrays, and find its cameras.

The defaults are the names of `langsteer.data.lerobot_export` and of ``lerobot_env_calvin``. For
other datasets name them: ``--features rgb_static=observation.images.top ...``; ``none`` leaves an
array out.

Example::

    chosen = choose(info["features"], {"rgb_static": "observation.images.top"})
    chosen["rgb_static"]                                     # "observation.images.top"
"""

import difflib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import GRIPPER_CAMERA, PIXEL_CENTRE, Camera, FixedCamera
from langsteer.calvin.dataset import VECTORS
from langsteer.calvin.dataset_writer import merged_config
from langsteer.data import lerobot_format as lerobot
from langsteer.errors import UserError

NONE = "none"
DEFAULTS = {
    "rgb_static": lerobot.IMAGES["static"],
    "rgb_gripper": lerobot.IMAGES["gripper"],
    "depth_static": lerobot.DEPTHS["static"],
    "depth_gripper": lerobot.DEPTHS["gripper"],
    "robot_obs": lerobot.STATE,
    "scene_obs": lerobot.SCENE,
    "rel_actions": lerobot.ACTION,
    "actions": NONE,
    "intrinsics_static": "observation.intrinsics_static",
    "pose_static": "observation.camera_pose_static",
    "intrinsics_gripper": "observation.intrinsics_gripper",
}
"""Name to LeRobot's key. ``actions`` are absolute: tcp xyz, Euler angles, gripper."""

NEEDED = ("rgb_static", "depth_static", "robot_obs")
OF_CAMERAS = {"intrinsics_static": (3, 3), "pose_static": (4, 4), "intrinsics_gripper": (3, 3)}
"""Shapes; pixels, and the world from the optical frame (x right, y down, z forward), metres."""

STATIC_PLANES = (0.01, 10.0)
"""Near and far plane of a foreign static camera, metres."""

_CENTRE_TOLERANCE = 1.0  # pixels between a principal point and the image's centre
_SQUARE_TOLERANCE = 0.01  # share between the two focal lengths


def parse(options: Sequence[str]) -> dict[str, str]:
    """``["rgb_static=observation.images.top"]`` as a mapping; raises `UserError` for others."""
    found = {}
    for option in options:
        name, equals, key = option.partition("=")
        if not equals or not key or name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, 1)
            hint = f"; did you mean {near[0]}?" if near and near[0] != name else ""
            raise UserError(
                f"--features {option}: expected NAME=KEY or NAME={NONE}, NAME one of "
                f"{', '.join(DEFAULTS)}{hint}"
            )
        found[name] = key
    return found


def choose(features: Mapping[str, lerobot.Feature], named: Mapping[str, str]) -> dict[str, str]:
    """Name to key of every array that the dataset has.

    Args:
        features: of ``info.json``.
        named: of the command line; the rest are defaults, and those may be absent.

    Raises:
        UserError: a named or a needed feature is absent, is a video, or has another shape.
    """
    wanted = dict(DEFAULTS)
    if named.get("actions", NONE) != NONE:
        wanted["rel_actions"] = NONE  # they follow from the absolute ones
    wanted |= named
    chosen = {}
    for name, key in wanted.items():
        if key in features:
            _check(name, key, features[key])
            chosen[name] = key
        elif name in NEEDED or (key != NONE and name in named):
            raise UserError(
                f"no {name}: {'left out' if key == NONE else f'{key!r} is missing'}; say "
                f"--features {name}=KEY with one of {', '.join(sorted(features))}"
            )
    if "depth_gripper" not in chosen:
        chosen.pop("rgb_gripper", None)  # a camera without depth tells nothing of its place
    return chosen


def _check(name: str, key: str, feature: lerobot.Feature) -> None:
    kind, shape = feature["dtype"], tuple(feature["shape"])
    if kind == "video":
        raise UserError(
            f"{key} ({name}) is a video, whose colours and depths are not exact; record the "
            "dataset with images (LeRobot: use_videos=False)"
        )
    if name.startswith(("rgb_", "depth_")):
        channels = 3 if name.startswith("rgb_") else 1
        if kind != "image" or len(shape) != 3 or lerobot.image_shape(feature)[2] != channels:
            raise UserError(
                f"{key} ({name}) is {kind} {shape}, expected an image of {channels} "
                f"channel{'s' if channels > 1 else ''}"
            )
        return
    expected = OF_CAMERAS.get(name) or (VECTORS[name],)
    if math.prod(shape) != math.prod(expected):
        raise UserError(
            f"{key} ({name}) has shape {shape}, CALVIN's has {expected}; name another feature, "
            f"or leave it away with --features {name}={NONE}"
        )


def cameras_of(
    chosen: Mapping[str, str],
    features: Mapping[str, lerobot.Feature],
    values: Mapping[str, NDArray[np.float64]],
) -> dict[str, object]:
    """CALVIN's ``merged_config.yaml`` of the dataset's own intrinsics and poses.

    Args:
        chosen: of `choose`.
        features: of ``info.json``.
        values: the arrays named in `OF_CAMERAS`, of any frame.

    Raises:
        UserError: they are missing, or CALVIN's format has no such camera.
    """
    missing = [name for name in ("intrinsics_static", "pose_static") if name not in values]
    if "depth_gripper" in chosen and "intrinsics_gripper" not in values:
        missing.append("intrinsics_gripper")
    if missing:
        raise UserError(
            f"nothing tells the cameras: {', '.join(missing)} missing. Name the features with "
            "--features, give CALVIN's merged_config.yaml with --cameras, or leave the gripper "
            f"camera away with --features depth_gripper={NONE} rgb_gripper={NONE}"
        )
    pose = values["pose_static"]
    turned = pose[:3, :3]
    if not np.allclose(turned @ turned.T, np.eye(3), atol=1e-3) or np.linalg.det(turned) < 0:
        raise UserError(f"pose_static {pose.tolist()}: its rotation is none")
    width_height_fov, renderer = _pinhole("static", chosen, features, values)
    eye, look_at = pose[:3, 3], pose[:3, 3] + pose[:3, 2]
    static = FixedCamera(
        *width_height_fov, STATIC_PLANES[0], STATIC_PLANES[1], _three(eye), _three(look_at),
        _three(-pose[:3, 1]),
    )  # fmt: skip
    gripper = GRIPPER_CAMERA
    if "depth_gripper" in chosen:
        size, _ = _pinhole("gripper", chosen, features, values)
        gripper = Camera(*size, GRIPPER_CAMERA.near, GRIPPER_CAMERA.far)
    return merged_config(renderer, static=static, gripper=gripper)


def _pinhole(
    camera: str,
    chosen: Mapping[str, str],
    features: Mapping[str, lerobot.Feature],
    values: Mapping[str, NDArray[np.float64]],
) -> tuple[tuple[int, int, float], str]:
    """Width, height and vertical field of view, and the renderer with this principal point."""
    matrix = values[f"intrinsics_{camera}"]
    height, width, _ = lerobot.image_shape(features[chosen[f"depth_{camera}"]])
    (fx, _, x), (_, fy, y) = matrix[:2].tolist()
    off = {
        name: max(abs(width / 2 - dx - x), abs(height / 2 - dy - y))
        for name, (dx, dy) in PIXEL_CENTRE.items()
    }
    renderer = min(off, key=off.__getitem__)
    if not (fx > 0 and fy > 0 and abs(fx / fy - 1) <= _SQUARE_TOLERANCE):
        raise UserError(f"intrinsics_{camera}: focal lengths {fx:g} and {fy:g}, expected one")
    if off[renderer] > _CENTRE_TOLERANCE:
        raise UserError(
            f"intrinsics_{camera}: the principal point ({x:g}, {y:g}) is not the centre of "
            f"{width} x {height} pixels, and CALVIN's format knows no other; crop the images"
        )
    return (width, height, math.degrees(2 * math.atan(height / 2 / fy))), renderer


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
