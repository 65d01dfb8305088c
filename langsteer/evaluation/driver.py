"""A policy that begins tasks for an expert to finish: the driver of instructed recordings.

Example::

    driver = PolicyDriver(load_agent("outputs/checkpoints/my_run/latest.ckpt"))
    driver.begin("open_drawer", env, np.random.default_rng(0))
    env.step(driver.act(env))
"""

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from langsteer.calvin.instructions import phrasings
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.player import UNSTEERED, begun_steerer, show
from langsteer.policies.agent import Agent, load_agent
from langsteer.steering.blocks import OccludedError
from langsteer.steering.config import SteeringConfig

if TYPE_CHECKING:
    from langsteer.steering.steerer import Steerer


class PolicyDriver:
    """Executes the predictions of an agent as a rollout does (`experts.recording.Driver`).

    Args:
        agent: who acts.
        steering: how the agent is led to its tasks; one that is led is not told the sentence.
    """

    def __init__(self, agent: Agent, steering: SteeringConfig = UNSTEERED) -> None:
        self._agent, self._steering = agent, steering
        self._steerer: Steerer | None = None
        self._queue: list[np.ndarray] = []

    @classmethod
    def load(cls, checkpoint: str, steering: SteeringConfig = UNSTEERED) -> "PolicyDriver":
        """The driver of a checkpoint, on the CPU."""
        return cls(load_agent(checkpoint), steering)

    @property
    def pipeline(self) -> ObservationPipeline:
        """How the clouds that it looks at must be made."""
        return self._agent.pipeline

    def begin(self, task: str, env: CalvinEnv, rng: np.random.Generator) -> None:
        """Forget what was, and be led to a task, or told it in one of its phrasings."""
        options = phrasings(task)
        seed = int(rng.integers(2**31))
        sentence = options[rng.integers(len(options))]
        self._queue, self._steerer = [], None
        if self._steering.steers:
            # A policy that cannot be led plays as it likes; the expert takes over as ever.
            with contextlib.suppress(OccludedError):
                self._steerer = begun_steerer(self._steering, env, task, seed)
        self._agent.reset(seed, None if self._steerer is None else self._steerer.predict)
        self._agent.instruct(None if self._steering.steers else sentence)

    def act(self, env: CalvinEnv) -> np.ndarray:
        """The next relative action (7,)."""
        if not self._queue:
            if self._steerer is not None:
                show(self._steerer, env)
            self._queue = list(self._agent.act(self._look(env)))
        elif len(self._queue) < self._agent.n_obs_steps:
            self._agent.observe(self._look(env))
        return self._queue.pop(0)

    def _look(self, env: CalvinEnv) -> dict[str, np.ndarray]:
        return env.observe(point_cloud=True, coloured=self._agent.sees_colours)
