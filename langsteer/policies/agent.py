"""A policy with a memory: the last observation frames, and its own random numbers.

Example::

    policy = langsteer.load_agent("outputs/checkpoints/my_run/latest.ckpt")
    policy.reset(seed=0)
    while not done:
        for action in policy.act({"point_cloud": cloud, "robot_obs": robot_obs}):   # (8, 7)
            ...

A prediction sees the present frame and the one a control step before it. So if you execute several
actions of a prediction, show the frame before the next prediction to `Agent.observe`. Give a policy
with language its sentence after each reset: ``policy.instruct("open the drawer")``.
"""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3
from langsteer.policies.loading import load_policy
from langsteer.sentences import make_encoder

Frame = Mapping[str, ArrayLike]
_STATE_SIZE = 15  # of CALVIN's robot_obs
Predictor = Callable[[DP3, dict[str, torch.Tensor], torch.Generator], NDArray[np.float32]]
"""From a policy, its observation (batch of 1) and a generator to the actions (8, 7) to execute."""


def sample_once(
    policy: DP3, obs: dict[str, torch.Tensor], generator: torch.Generator
) -> NDArray[np.float32]:
    """The policy's own prediction, unguided."""
    return policy.predict_action(obs, generator=generator)["action"][0].cpu().numpy()


class Agent:
    """A DP3 with the memory of a rollout.

    Args:
        policy: the network.
        predict: chooses a trajectory, unless a reset gives another one.

    Raises:
        UserError: the policy follows sentences, and its training's encoder is not here.

    Attributes:
        pipeline: the observation pipeline of the policy's training.
        n_obs_steps: frames of a prediction.
        sees_colours: whether its clouds are XYZRGB.
        reads_sentences: whether `instruct` makes a difference.
    """

    def __init__(self, policy: DP3, predict: Predictor = sample_once) -> None:
        self.policy = policy
        self.sees_colours = policy.config.use_pc_color
        self.reads_sentences = policy.language is not None
        self._own_predict = predict
        self.n_obs_steps = policy.config.n_obs_steps
        self._frames: deque[dict[str, torch.Tensor]] = deque(maxlen=self.n_obs_steps)
        self._generator = torch.Generator()
        self._sentence: torch.Tensor | None = None
        if policy.language is not None:
            self._encoder = make_encoder(policy.config.language_encoder, "policy.language_encoder")
            policy.language.check(self._encoder)
        self.reset()

    @property
    def pipeline(self) -> ObservationPipeline:
        """How its clouds must be made."""
        if self.policy.pipeline is None:
            raise ValueError("the policy does not know its observation pipeline")
        return ObservationPipeline.from_dict(self.policy.pipeline)

    def reset(self, seed: int = 0, predict: Predictor | None = None) -> None:
        """Forget all frames and the instruction, and draw noise from ``seed`` on.

        Args:
            seed: of the noise; every device draws the same.
            predict: chooses a trajectory until the next reset; steering gives its own.
        """
        self._predict = predict or self._own_predict
        self._frames.clear()
        self._sentence = None
        self._generator.manual_seed(seed)

    def instruct(self, sentence: str | None) -> None:
        """Give the sentence of the task until the next reset.

        Args:
            sentence: in words. None withholds it: the policy then chooses for itself. A policy
                without language reads none.
        """
        if self.policy.language is None:
            return
        if sentence is None:
            self._sentence = torch.zeros(self.policy.config.language_dim)
        else:
            self._sentence = torch.from_numpy(self._encoder.encode([sentence])[0]).float()

    def observe(self, observation: Frame) -> None:
        """Remember a frame: ``point_cloud`` (P, 3 or 6) and ``robot_obs`` (15,), raw units.

        Raises:
            UserError: one of them is missing, or its shape is not that of the frames before.
        """
        for key in ("point_cloud", "robot_obs"):
            if key not in observation:
                raise UserError(f"observation: no {key!r}; it has {', '.join(observation)}")
        cloud = np.asarray(observation["point_cloud"], dtype=np.float32)
        state = np.asarray(observation["robot_obs"], dtype=np.float32)
        self._check_shapes(cloud, state)
        frame = {"point_cloud": torch.from_numpy(cloud), "agent_pos": torch.from_numpy(state)}
        self._frames.append(frame)

    def _check_shapes(self, cloud: NDArray[np.float32], state: NDArray[np.float32]) -> None:
        widths = (6,) if self.sees_colours else (3, 6)
        if cloud.ndim != 2 or cloud.shape[1] not in widths:
            expected = " or ".join(map(str, widths))
            raise UserError(f"point_cloud {cloud.shape}: expected (P, {expected})")
        if state.shape != (_STATE_SIZE,):
            raise UserError(f"robot_obs {state.shape}: expected ({_STATE_SIZE},)")
        before = self._frames[-1]["point_cloud"] if self._frames else None
        if before is not None and tuple(before.shape) != cloud.shape:
            raise UserError(
                f"point_cloud {cloud.shape}: the frame before had {tuple(before.shape)}; all "
                "frames between two resets have one shape"
            )

    def act(self, observation: Frame) -> NDArray[np.float32]:
        """Remember the present frame and predict from it.

        The first frame of an episode is taken twice, as training pads.

        Returns:
            (8, 7) ``rel_actions`` for this and the next steps. The gripper is the network's: above
            0 opens.

        Raises:
            UserError: the policy follows sentences and has heard none since its reset.
        """
        self.observe(observation)
        # Training pads an episode's start by its first frame: so must the rollout.
        missing = self.n_obs_steps - len(self._frames)
        frames = [self._frames[0]] * missing + list(self._frames)
        obs = {
            key: torch.stack([frame[key] for frame in frames])[None].to(self.policy.device)
            for key in frames[0]
        }
        if self.policy.language is not None:
            obs["language"] = self._told()[None].to(self.policy.device)
        return self._predict(self.policy, obs, self._generator)

    def _told(self) -> torch.Tensor:
        if self._sentence is None:
            raise UserError(
                "this policy follows sentences and was told none: call "
                "Agent.instruct('open the drawer') after each reset, or instruct(None) to leave "
                "it without"
            )
        return self._sentence


def load_agent(
    path: str | Path, device: str = "cpu", use_ema: bool = True, precision: str = "auto"
) -> Agent:
    """The policy of a checkpoint as an `Agent`; raises `UserError` as `load_policy` does."""
    return Agent(load_policy(path, device, use_ema, precision))
