"""Run a LangSteer checkpoint in CALVIN's own evaluation loop.

The loop (``evaluate_policy.py`` of mees/calvin) calls ``model.reset()`` before each task and
``model.step(obs, goal)`` at each control step, with the observation of its environment::

    model = CalvinModel("outputs/checkpoints/my_run/latest.ckpt", renderer="egl")
    evaluate_policy(model, env)

Clouds are made for predictions alone: from two observations in eight.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import PIXEL_CENTRE
from langsteer.calvin.kinematics import camera_pose_from_tcp
from langsteer.data.pointcloud import point_cloud
from langsteer.envs.actions import checked_action
from langsteer.errors import UserError
from langsteer.policies.agent import Agent, load_agent


class CalvinModel:
    """``CalvinBaseModel``'s protocol around an agent.

    Args:
        checkpoint: of training.
        renderer: who draws CALVIN's images: ``"egl"`` (``use_egl: true``) or ``"tiny"``.
        device: of the policy.
        seed: of the policy's noise; each task gets its own.
        precision: of the policy, see `langsteer.policies.loading.load_policy`.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        renderer: str = "egl",
        device: str = "cpu",
        seed: int = 0,
        precision: str = "auto",
    ) -> None:
        if renderer not in PIXEL_CENTRE:
            raise UserError(f"renderer {renderer!r}: expected one of {', '.join(PIXEL_CENTRE)}")
        self.agent: Agent = load_agent(checkpoint, device, precision=precision)
        self._pipeline = replace(self.agent.pipeline, pixel_centre=PIXEL_CENTRE[renderer])
        self._seed = seed
        self._queue: list[NDArray[np.float32]] = []

    def reset(self) -> None:
        """A new task begins; the robot does not move."""
        self.agent.reset(self._seed)
        self._seed += 1
        self._queue = []

    def step(self, obs: Mapping[str, Any], goal: object = None) -> NDArray[np.float64]:
        """The action of this control step.

        Args:
            obs: of ``PlayTableSimEnv.get_obs``: ``rgb_obs``, ``depth_obs``, ``robot_obs``.
            goal: the instruction; a policy without language does not read it.

        Returns:
            (7,) relative action with a gripper of exactly ±1, as CALVIN demands.
        """
        if not self._queue:
            if isinstance(goal, str):
                self.agent.instruct(goal)
            self._queue = list(self.agent.act(self._frame(obs)))
        elif len(self._queue) < self.agent.n_obs_steps:
            self.agent.observe(self._frame(obs))
        return checked_action(self._queue.pop(0))

    def _frame(self, obs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        state = np.asarray(obs["robot_obs"], dtype=np.float64)
        depth = {
            name: np.asarray(obs["depth_obs"][f"depth_{name}"], dtype=np.float32)
            for name in self._pipeline.cameras
        }
        colour = None
        if self.agent.sees_colours:
            images = obs["rgb_obs"]
            colour = {name: np.asarray(images[f"rgb_{name}"]) for name in self._pipeline.cameras}
        cloud = point_cloud(self._pipeline, depth, camera_pose_from_tcp(state), colour)
        return {"point_cloud": cloud, "robot_obs": state}
