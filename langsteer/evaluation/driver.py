"""A policy that begins tasks for an expert to finish: the driver of instructed recordings.

Example::

    driver = PolicyDriver(load_agent("outputs/checkpoints/my_run/latest.ckpt"))
    driver.begin("open_drawer", np.random.default_rng(0))
    env.step(driver.act(env))
"""

import numpy as np

from langsteer.calvin.instructions import phrasings
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.policies.agent import Agent, load_agent


class PolicyDriver:
    """Executes the predictions of an agent as a rollout does (`experts.recording.Driver`)."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._queue: list[np.ndarray] = []

    @classmethod
    def load(cls, checkpoint: str) -> "PolicyDriver":
        """The driver of a checkpoint, on the CPU."""
        return cls(load_agent(checkpoint))

    @property
    def pipeline(self) -> ObservationPipeline:
        """How the clouds that it looks at must be made."""
        return self._agent.pipeline

    def begin(self, task: str, rng: np.random.Generator) -> None:
        """Forget what was, and be told a task in one of its phrasings."""
        options = phrasings(task)
        self._agent.reset(seed=int(rng.integers(2**31)))
        self._agent.instruct(options[rng.integers(len(options))])
        self._queue = []

    def act(self, env: CalvinEnv) -> np.ndarray:
        """The next relative action (7,)."""
        if not self._queue:
            self._queue = list(self._agent.act(self._look(env)))
        elif len(self._queue) < self._agent.n_obs_steps:
            self._agent.observe(self._look(env))
        return self._queue.pop(0)

    def _look(self, env: CalvinEnv) -> dict[str, np.ndarray]:
        return env.observe(point_cloud=True, coloured=self._agent.sees_colours)
