"""Run a policy in the simulator for one task, looking only when a prediction needs it.

Example::

    run = run_task(env, agent, "open_drawer")
    run.success, run.steps

Where a policy sees two frames, it sees the first one twice, as in training. Eight actions of a
prediction are executed; the frame before the next prediction and the present one are rendered, and
no other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.calvin.tasks import achieved, detect
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.policies.agent import Agent


@dataclass
class TaskRun:
    """What happened in T steps.

    Attributes:
        task: what was to be done.
        success: whether the oracle saw it done, against the start of the run.
        tasks_seen: every task that the oracle saw done at some step.
        robot_obs: (T + 1, 15) states, the start first.
        scene_obs: (T + 1, 24).
        actions: (T, 7) as predicted.
        predicted_at: the steps before which predictions were made.
        prediction_seconds: how long each took, without rendering.
        cloud: (P, 3) the first cloud that the policy saw.
    """

    task: str
    success: bool = False
    tasks_seen: set[str] = field(default_factory=set)
    robot_obs: list[np.ndarray] = field(default_factory=list)
    scene_obs: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    predicted_at: list[int] = field(default_factory=list)
    prediction_seconds: list[float] = field(default_factory=list)
    cloud: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Control steps of 1/30 s that were taken."""
        return len(self.actions)

    @property
    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction, without rendering."""
        return 1000 * float(np.median(self.prediction_seconds))

    @property
    def outcome(self) -> str:
        """What a video says in the end."""
        return f"{'success' if self.success else 'failed'} after {self.steps / 30:.1f} s"


def run_task(
    env: CalvinEnv,
    agent: Agent,
    task: str,
    max_steps: int = STEPS_PER_TASK,
    on_step: Callable[[CalvinEnv], None] | None = None,
) -> TaskRun:
    """Let ``agent`` (just reset) act until the oracle sees ``task`` done or the steps are used up.

    Args:
        env: wherever it stands: the task is judged against this moment.
        agent: the policy.
        task: one of `langsteer.calvin.tasks.TASKS`.
        max_steps: CALVIN's benchmark gives 360.
        on_step: called at the start and after each step, e.g. to film.
    """
    run, start = TaskRun(task), env.info()
    queue: list[np.ndarray] = []
    _note(run, env, on_step)
    for step in range(max_steps):
        if not queue:
            queue = _predict(run, env, agent, step)
        action = queue.pop(0)
        env.step(action)
        run.actions.append(action)
        _note(run, env, on_step)
        info = env.info()
        run.tasks_seen |= detect(start, info)
        if achieved(start, info, task):
            run.success = True
            break
        if 0 < len(queue) < agent.n_obs_steps:
            agent.observe(_look(env, agent))
    return run


def _predict(run: TaskRun, env: CalvinEnv, agent: Agent, step: int) -> list[np.ndarray]:
    observation = _look(env, agent)
    if run.cloud is None:
        run.cloud = observation["point_cloud"]
    begun = time.perf_counter()
    actions = agent.act(observation)
    run.prediction_seconds.append(time.perf_counter() - begun)
    run.predicted_at.append(step)
    return list(actions)


def _look(env: CalvinEnv, agent: Agent) -> dict[str, Any]:
    return env.observe(point_cloud=True, coloured=agent.policy.config.use_pc_color)


def _note(run: TaskRun, env: CalvinEnv, on_step: Callable[[CalvinEnv], None] | None) -> None:
    run.robot_obs.append(env.robot_obs)
    run.scene_obs.append(env.scene_obs)
    if on_step is not None:
        on_step(env)
