"""The frame for our policy, from an observation under the keys of `serving.messages`.

The cloud is taken as it comes, or made from depth images by the pipeline of the policy's training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.kinematics import camera_pose_from_tcp
from langsteer.data.pointcloud import NoPointsError, ObservationPipeline, point_cloud
from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.serving.messages import CLOUD, DEPTHS, IMAGES, STATE

STATE_SIZE = 15


def read_frame(observation: object, agent: Agent) -> dict[str, NDArray[Any]]:
    """``point_cloud`` (P, 3 or 6) and ``robot_obs`` (15,) of one observation.

    Raises:
        UserError: keys are missing, or arrays have another shape or are not finite.
    """
    if not isinstance(observation, Mapping):
        raise UserError(f"an observation was expected, found {type(observation).__name__}")
    state = _array(observation, STATE, (STATE_SIZE,))
    width = 6 if agent.sees_colours else 3
    if CLOUD in observation:
        cloud = _array(observation, CLOUD, (agent.pipeline.n_points, width))
    else:
        cloud = _cloud_of_images(observation, agent.pipeline, state, width == 6)
    return {"point_cloud": cloud, "robot_obs": state}


def _cloud_of_images(
    observation: Mapping[str, object],
    pipeline: ObservationPipeline,
    state: NDArray[Any],
    coloured: bool,
) -> NDArray[Any]:
    cameras = {name: getattr(pipeline, name) for name in pipeline.cameras}
    sizes = {name: (camera.height, camera.width) for name, camera in cameras.items()}
    missing = [DEPTHS[name] for name in sizes if DEPTHS[name] not in observation]
    if missing:
        raise UserError(
            f"the policy sees point clouds: send {CLOUD!r}, or depth in metres as {missing}; "
            f"found {sorted(map(str, observation))}"
        )
    depth = {name: _array(observation, DEPTHS[name], size) for name, size in sizes.items()}
    colours = None
    if coloured:
        colours = {
            name: _array(observation, IMAGES[name], (*size, 3)) for name, size in sizes.items()
        }
    try:
        return point_cloud(pipeline, depth, camera_pose_from_tcp(state), colours)
    except NoPointsError as error:
        raise UserError(f"the depth images show nothing of the workspace: {error}") from error


def _array(observation: Mapping[str, object], key: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if key not in observation:
        raise UserError(f"{key!r} is missing; found {sorted(map(str, observation))}")
    value = np.asarray(observation[key])
    if value.shape != shape:
        raise UserError(f"{key!r} has shape {value.shape}, expected {shape}")
    if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise UserError(f"{key!r} holds values that are no finite numbers")
    return value if value.dtype == np.uint8 else value.astype(np.float32)
