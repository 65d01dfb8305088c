"""Our policies as models of mees/calvin: its own ``evaluate_policy`` runs them.

Example::

    from langsteer.compat import calvin_env
    calvin_env.install()                     # or the real calvin_env, with its depth images
    from calvin_agent.evaluation.evaluate_policy import evaluate_policy
    model = CalvinModel(load_agent("outputs/checkpoints/x/latest.ckpt"))
    evaluate_policy(model, calvin_env.get_env(scene="D"), epoch=0)
"""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.kinematics import camera_pose_from_tcp
from langsteer.data.pointcloud import point_cloud
from langsteer.envs.actions import checked_action
from langsteer.errors import UserError
from langsteer.policies.agent import Agent


class CalvinModel:
    """``calvin_agent.models.calvin_base_model.CalvinBaseModel``.

    Args:
        agent: the policy.
        seeds: of the noise, one for each task; by default 0, 1, 2 and so on.
    """

    def __init__(self, agent: Agent, seeds: Iterable[int] | None = None) -> None:
        self._agent = agent
        self._seeds = iter(itertools.count() if seeds is None else seeds)
        self._queue: deque[NDArray[np.float32]] = deque()
        self._is_told = False

    def reset(self) -> None:
        """A task begins."""
        self._agent.reset(next(self._seeds))
        self._queue.clear()
        self._is_told = False

    def step(self, obs: Mapping[str, Any], goal: str) -> NDArray[np.float64]:
        """The relative action of this step.

        Args:
            obs: of ``get_obs``, with depth images.
            goal: the sentence of the task.

        Returns:
            (7,), the gripper ±1.

        Raises:
            UserError: the environment draws no depth.
        """
        if not self._is_told:
            self._agent.instruct(goal)
            self._is_told = True
        # A prediction is executed to its end; it sees the frames just before it and no others.
        if not self._queue:
            self._queue.extend(self._agent.act(self._frame(obs)))
        elif len(self._queue) < self._agent.n_obs_steps:
            self._agent.observe(self._frame(obs))
        return checked_action(self._queue.popleft())

    def _frame(self, obs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Cloud and state as the simulator's `CalvinEnv.observe` makes them."""
        pipeline = self._agent.pipeline
        colours = None
        try:
            depth = {name: obs["depth_obs"][f"depth_{name}"] for name in pipeline.cameras}
            if self._agent.sees_colours:
                colours = {name: obs["rgb_obs"][f"rgb_{name}"] for name in pipeline.cameras}
        except KeyError as error:
            raise UserError(
                f"the policy sees point clouds, and the observation has no {error}; let the "
                f"environment draw colour and depth of {', '.join(pipeline.cameras)}"
            ) from error
        pose = camera_pose_from_tcp(obs["robot_obs"])
        cloud = point_cloud(pipeline, depth, pose, colours)
        return {"point_cloud": cloud, "robot_obs": obs["robot_obs"]}
