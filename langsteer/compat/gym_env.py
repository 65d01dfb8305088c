"""CALVIN's tasks and chains as gymnasium environments, registered under ids.

Example::

    import gymnasium
    import langsteer.compat.gym_env     # registers the ids

    env = gymnasium.make("langsteer/Calvin-v0", task="open_drawer", observation="rgb+cloud")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    info["is_success"], env.unwrapped.task_description    # False, 'open the drawer'

``langsteer/CalvinChain-v0`` plays a chain of the long-horizon benchmark. LeRobot's evaluation reads
the same attributes and keys (`langsteer.compat.observations`).
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from langsteer.calvin.benchmark import (
    CHAIN_LENGTH,
    N_CHAINS,
    STEPS_PER_TASK,
    chain,
    initial_observations,
)
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import checked_task
from langsteer.calvin.tasks import achieved
from langsteer.compat.observations import Observations
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.actions import ACTION_SIZE
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.experts.recording import Performer

TASK_ID, CHAIN_ID = "langsteer/Calvin-v0", "langsteer/CalvinChain-v0"
Observation = dict[str, Any]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class _CalvinGym(gymnasium.Env[Any, Any]):
    """The shared part of the environments: the simulator, its observations, rendering."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - gymnasium's type

    def __init__(
        self,
        scene: str = "builtin",
        observation: str = "cloud",
        assets_path: str | Path | None = None,
        renderer: str = "depth",
        led_reset: str = "head",
        pipeline: ObservationPipeline | None = None,
        max_steps: int = STEPS_PER_TASK,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.env = CalvinEnv(scene, assets_path, renderer, pipeline, led_reset, render_mode)
        self._observations = Observations(self.env, observation)
        self.observation_space = self._observations.space
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._max_steps = max_steps
        self._give("open_drawer")

    def _give(self, task: str) -> None:
        """Begin with ``task``."""
        self.task, self.task_description = task, phrasings(task)[0]
        # The oracle compares with this moment: success is a change, not a state.
        self._start, self._steps = self.env.info(), 0

    def _act(self, action: ArrayLike) -> bool:
        """Take a step; whether the task is done."""
        self.env.step(action)
        self._steps += 1
        return achieved(self._start, self.env.info(), self.task)

    def render(self) -> NDArray[np.uint8] | None:
        """The static camera's colours (200, 200, 3) uint8, or None without a render mode."""
        return self.env.render()

    def close(self) -> None:
        """Free the simulator; a second call does nothing."""
        self.env.close()


class CalvinTaskEnv(_CalvinGym):
    """One task, from feasible starts like the benchmark's.

    Args:
        task: one of `langsteer.calvin.task.TASKS`.
        scene: ``"builtin"`` or CALVIN's ``"A"`` ... ``"D"``.
        observation: parts, see `langsteer.compat.observations`.
        assets_path, renderer, led_reset, pipeline: see `CalvinEnv`.
        max_steps: control steps of 1/30 s; then the episode is truncated.
        render_mode: None or ``"rgb_array"``.

    Attributes:
        task: its name.
        task_description: its sentence.

    Raises:
        UserError: an unknown task, part or scene, or incomplete assets.
    """

    def __init__(self, task: str = "open_drawer", **settings: Any) -> None:  # noqa: ANN401 - above
        checked_task(task)
        super().__init__(**settings)
        self._performer = Performer(self.env, images=False)
        self._max_episode_steps = self._max_steps  # LeRobot's evaluation reads it
        self._give(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start anew: a random start of the task, or the one in ``options``.

        Args:
            seed: of the starts from here on.
            options: ``robot_obs`` (15,) and ``scene_obs`` (24,), one or both. Other keys are left
                to wrappers.

        Returns:
            Observation and ``is_success`` False. If a block must be in hand, it was lifted.
        """
        super().reset(seed=seed)
        given = {key: (options or {}).get(key) for key in ("robot_obs", "scene_obs")}
        state = {key: value for key, value in given.items() if value is not None}
        if state:
            self.env.reset(options=state)
        else:
            # Experts do whatever must come first, such as lifting a block to be placed.
            self._performer.prepare(self.task, self.np_random)
        self._give(self.task)
        return self._observations.observe(), {"is_success": False}

    def step(self, action: ArrayLike) -> Step:
        """One control step with a relative action (7,).

        Returns:
            Observation; reward 1 once the task is done and 0 before; terminated once it is done;
            truncated after ``max_steps``; ``is_success``.
        """
        done = self._act(action)
        truncated = not done and self._steps >= self._max_steps
        return self._observations.observe(), float(done), done, truncated, {"is_success": done}


class CalvinChainEnv(_CalvinGym):
    """A chain of the long-horizon benchmark: five tasks in a row (LH-MTLC).

    The chain is ``options["chain"]``, else ``seed`` modulo 1000, else the next one. Rewards add up
    to the number of tasks done. So their mean is the benchmark's average length.

    Args:
        settings: as of `CalvinTaskEnv`; ``max_steps`` are for each task.

    Attributes:
        task, task_description: of the present task; they change within an episode.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - told above
        super().__init__(**settings)
        self._max_episode_steps = CHAIN_LENGTH * self._max_steps
        self._chain, self._completed = -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """The start of a chain; returns its observation and ``info`` as `step` does."""
        super().reset(seed=seed)
        number = (options or {}).get("chain", seed)
        # Without a number the chains come in turn, so an evaluation of 1000 resets plays each once.
        self._chain = int(self._chain + 1 if number is None else number) % N_CHAINS
        given = chain(self._chain)
        self._tasks, self._completed = given.tasks, 0
        robot_obs, scene_obs = initial_observations(given.initial_state)
        self.env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs})
        self._give(self._tasks[0])
        return self._observations.observe(), self._info()

    def step(self, action: ArrayLike) -> Step:
        """One control step with a relative action (7,).

        Returns:
            Observation; reward 1 for each task once it is done; terminated once all five are;
            truncated after a task's last step; ``is_success`` (all five), ``completed`` (their
            number), ``chain`` (its number).
        """
        done = self._act(action)
        self._completed += done
        finished = self._completed == CHAIN_LENGTH
        truncated = not done and self._steps >= self._max_steps
        # Nothing is reset between tasks: the next one begins where this one ended.
        if done and not finished:
            self._give(self._tasks[self._completed])
        return self._observations.observe(), float(done), finished, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        success = self._completed == CHAIN_LENGTH
        return {"is_success": success, "completed": self._completed, "chain": self._chain}


def _register() -> None:
    for name, kind in ((TASK_ID, CalvinTaskEnv), (CHAIN_ID, CalvinChainEnv)):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:{kind.__name__}")


_register()
