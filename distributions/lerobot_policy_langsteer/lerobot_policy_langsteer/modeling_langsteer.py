"""A policy of LangSteer's as LeRobot calls it: one action a step for each environment.

`select_action` is called under ``torch.inference_mode()``, in which no gradient exists. Guidance
needs gradients, so predictions are made outside of it, from copies of the observation.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from numpy.typing import NDArray
from torch import Tensor

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.calvin.scenes import BLOCK_NAMES
from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.policies.loading import load_policy
from langsteer.steering.blocks import KnownScene
from langsteer.steering.config import SteeringConfig
from langsteer.steering.language import make_reader
from langsteer.steering.steerer import Steerer
from lerobot_policy_langsteer.configuration_langsteer import LangSteerConfig

POINT_CLOUD, TASK = "observation.point_cloud", "task"
_SCALE = np.repeat([METRES_PER_UNIT, RADIANS_PER_UNIT], 3)


class LangSteerPolicy(PreTrainedPolicy):
    """See ``configuration_langsteer``.

    Raises:
        UserError: no checkpoint is named, it cannot be read, or the steering is set wrongly.
    """

    config_class = LangSteerConfig
    name = "langsteer"

    def __init__(self, config: LangSteerConfig, **_: Any) -> None:  # noqa: ANN401 - of a dataset
        super().__init__(config)
        config.validate_features()
        if config.checkpoint is None:
            raise UserError("--policy.checkpoint: name a checkpoint or an exported folder")
        self.policy = load_policy(config.checkpoint, config.device, config.use_ema)
        keys = [f"steering={config.steering}", *config.steering_keys]
        self._steering = SteeringConfig.from_dict(compose("experiment", keys)["steering"])
        self.reset()

    def reset(self) -> None:
        """A rollout begins in every environment."""
        self._actors: list[_Actor] = []

    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:  # noqa: ANN401 - LeRobot's
        """The next action of each environment, (B, 7) float32."""
        clouds, states = (_numpy(batch[key]) for key in (POINT_CLOUD, OBS_STATE))
        scenes = _numpy(batch[OBS_ENV_STATE]) if OBS_ENV_STATE in batch else [None] * len(states)
        sentences = batch.get(TASK) or [""] * len(states)
        while len(self._actors) < len(states):
            self._actors.append(_Actor(self, len(self._actors)))
        with torch.inference_mode(False), torch.no_grad():
            rows = zip(self._actors, clouds, states, scenes, sentences, strict=True)
            actions = np.stack([actor.act(*row) for actor, *row in rows])
        return torch.from_numpy(actions).to(batch[OBS_STATE].device)

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:  # noqa: ANN401
        """The next actions of each environment in one go, (B, K, 7) float32."""
        first = self.select_action(batch)
        rest = [np.stack(list(actor.queue)) for actor in self._actors]
        for actor in self._actors:
            actor.queue.clear()
        return torch.cat([first[:, None], torch.from_numpy(np.stack(rest)).to(first)], dim=1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Policies are trained by LangSteer; raises NotImplementedError."""
        raise NotImplementedError("langsteer policies are trained by scripts/train_dp3.py")

    def get_optim_params(self) -> dict[str, Any]:
        """As `forward`."""
        raise NotImplementedError("langsteer policies are trained by scripts/train_dp3.py")

    def agent_for(
        self, sentence: str, seed: int, pose: NDArray[Any], scene: NDArray[Any] | None
    ) -> Agent:
        """An agent that goes about a task from here, steered where the configuration says so."""
        if not self._steering.steers:
            agent = Agent(self.policy)
        else:
            task = make_reader(self._steering.encoder, self._steering.plugin)(sentence).task
            known = None if scene is None else KnownScene(scene, BLOCK_NAMES[self.config.scene])
            if self._steering.privileged and known is None:
                raise UserError(
                    "this steering reads where blocks lie: add state to --env.observation, e.g. "
                    "rgb+cloud+state"
                )
            steerer = Steerer(self._steering)
            steerer.begin(task, pose, seed, known)
            agent = Agent(self.policy, predict=steerer.predict)
        agent.reset(seed)
        agent.instruct(sentence or None)
        return agent


class _Actor:
    """One environment's memory: its agent, the actions to come, and the commanded pose.

    Attributes:
        queue: actions that were predicted and not executed.
    """

    def __init__(self, policy: LangSteerPolicy, number: int) -> None:
        self._policy = policy
        self._random = np.random.default_rng([policy.config.seed, number])
        self.queue: deque[NDArray[np.float32]] = deque()
        self._sentence: str | None = None
        self._agent: Agent | None = None
        self._pose: NDArray[np.float64] | None = None

    def act(
        self,
        cloud: NDArray[Any],
        state: NDArray[Any],
        scene: NDArray[Any] | None,
        sentence: str,
    ) -> NDArray[np.float32]:
        """The action (7,) of this step. Another sentence is another task."""
        if self._pose is None:
            self._pose = state[:6].astype(np.float64)  # the arm is at rest
        if self._agent is None or sentence != self._sentence:
            seed = int(self._random.integers(2**31))
            self._agent = self._policy.agent_for(sentence, seed, self._pose, scene)
            self._sentence = sentence
            self.queue.clear()
        frame = {"point_cloud": cloud, "robot_obs": state}
        if not self.queue:
            self.queue.extend(self._agent.act(frame))
        elif len(self.queue) < self._agent.n_obs_steps:
            self._agent.observe(frame)  # the frame before the next prediction
        action = self.queue.popleft()
        self._pose = self._pose + action[:6] * _SCALE
        return action


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    """A copy that is no inference tensor."""
    return tensor.detach().cpu().float().numpy().copy()
