"""A remote policy in the place of an agent: it looks, asks, and returns actions.

Example::

    actor = RemoteActor(RemotePolicy("ws://127.0.0.1:8000"))
    actor.reset(seed=0)
    actor.instruct("open the drawer")
    run = run_task(env, actor, "open_drawer")
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.errors import UserError
from langsteer.serving.client import GO_ON, RemotePolicy
from langsteer.serving.messages import (
    CLOUD,
    DEPTHS,
    HISTORY,
    IMAGES,
    PROMPT,
    RESET,
    SEED,
    STATE,
    Offer,
    checked_actions,
)

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv

_SCALE = np.repeat([METRES_PER_UNIT, RADIANS_PER_UNIT], 3)


class RemoteActor:
    """Acts as its server answers.

    Args:
        policy: the connection.
        offer: the policy's inputs and actions; by default the server's own description.
        action_horizon: number of actions to execute of an answer; None executes all.

    Attributes:
        n_obs_steps: frames a prediction sees.
        sees_colours: whether its clouds are XYZRGB.
        pipeline: of its clouds.
        reads_sentences: whether the sentence makes a difference.
    """

    def __init__(
        self, policy: RemotePolicy, offer: Offer | None = None, action_horizon: int | None = None
    ) -> None:
        self._policy = policy
        self.offer = Offer.from_metadata(policy.metadata) if offer is None else offer
        self.n_obs_steps, self.sees_colours = self.offer.n_obs_steps, self.offer.coloured
        self.pipeline, self.reads_sentences = self.offer.pipeline, self.offer.reads_sentences
        self._action_horizon = action_horizon
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Begin a task: the next request says so, with the seed of the policy's noise."""
        self._seed, self._is_new, self._prompt = seed, True, ""
        self._history: list[dict[str, Any]] = []

    def instruct(self, sentence: str | None) -> None:
        """Give the sentence of the task until the next reset."""
        self._prompt = sentence or ""

    def look(self, env: "CalvinEnv") -> dict[str, Any]:
        """The present observation, as sent to the server; only the policy's inputs are drawn."""
        frame: dict[str, Any] = {
            STATE: env.robot_obs.astype(np.float32),
            "commanded_pose": env.commanded_pose,
        }
        parts = self.offer.observation
        if "rgb" in parts:
            for name, key in IMAGES.items():
                frame[key], depth = env.render_camera(name)
                if "depth" in parts:
                    frame[DEPTHS[name]] = depth
        elif "depth" in parts:
            frame |= {key: env.render_depth(name) for name, key in DEPTHS.items()}
        if "cloud" in parts:
            # Drawn only if asked for: clouds cost most of a step.
            cloud = env.observe(point_cloud=True, coloured=self.sees_colours)["point_cloud"]
            frame[CLOUD] = frame["point_cloud"] = cloud
        return frame

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Keep a frame for the next request."""
        self._history.append(_sent(observation))

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Ask for the next actions.

        Args:
            observation: of `look`.

        Returns:
            (K, 7) relative actions. Absolute ones of the server become relative ones to the same
            targets.

        Raises:
            UserError: the server is gone or slow, or its answer has no actions.
        """
        request = {**_sent(observation), PROMPT: self._prompt, RESET: self._is_new}
        request |= {SEED: self._seed}
        if self.n_obs_steps > 1:
            request[HISTORY] = self._history[-(self.n_obs_steps - 1) :]
        # The server has these frames now; sending them again would shift its memory.
        self._history, self._is_new = [], False
        try:
            actions = checked_actions(self._policy.infer(request))
        except ValueError as error:
            raise UserError(f"{self._policy.url}: the server answered {error}; {GO_ON}") from error
        actions = actions[: self._action_horizon]
        # The simulator adds relative actions to a target, and rollouts count on that.
        if self.offer.actions == "absolute":
            actions = as_relative(actions, observation["commanded_pose"])
        return actions.astype(np.float32)

    def close(self) -> None:
        """Close the connection."""
        self._policy.close()


def as_relative(
    actions: NDArray[np.float64], commanded_pose: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Absolute actions (K, 7) as relative ones to the same targets.

    Args:
        actions: xyz in metres, Euler angles in radians, gripper.
        commanded_pose: (6,); the first relative action is added to it.

    The turns are the short way round: roll sits at ±π in CALVIN and flips its sign.
    """
    targets = np.vstack([commanded_pose, actions[:, :6]])
    targets[:, 3:] = np.unwrap(targets[:, 3:], axis=0)
    return np.hstack([np.diff(targets, axis=0) / _SCALE, actions[:, 6:]])


def _sent(observation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an observation to send."""
    return {key: value for key, value in observation.items() if key.startswith("observation/")}
