"""Let a policy act in the simulator until a task is done.

Example::

    env.reset(seed=0)
    agent.reset(seed=0)
    run = run_task(env, agent, "open_drawer")
    run.success, run.steps

A policy of two frames sees the first one twice, as in training. Eight actions of a prediction are
executed. Only the frames of predictions are rendered: two of eight. Nothing here needs PyTorch.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.calvin.tasks import achieved, detect

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv

Frame = Mapping[str, Any]
"""``point_cloud`` (P, 3 or 6) and ``robot_obs`` (15,)."""


@runtime_checkable
class Elsewhere(Protocol):
    """An actor in another process: it looks for itself, and holds a connection."""

    def look(self, env: "CalvinEnv") -> Frame:
        """Its input at this moment; a ``point_cloud`` may be missing."""

    def close(self) -> None:
        """Let go of the connection."""


class Actor(Protocol):
    """Whatever acts: an `Agent`, or a policy of another kind."""

    n_obs_steps: int
    sees_colours: bool

    def reset(self, seed: int = 0) -> None:
        """Begin a task; ``seed`` is the noise's."""

    def instruct(self, sentence: str | None) -> None:
        """Give the sentence of the task until the next reset."""

    def observe(self, observation: Frame) -> None:
        """Show a frame without asking for actions."""

    def act(self, observation: Frame) -> NDArray[np.float32]:
        """Actions (K, 7) for this and the next steps."""


@dataclass
class TaskRun:
    """The record of T steps.

    Attributes:
        task: the one to do.
        success: whether the oracle saw it done, against the start of the run.
        tasks_seen: every task done at some step, by the oracle.
        robot_obs: (T + 1, 15) states, the start first.
        scene_obs: (T + 1, 24).
        actions: (T, 7) as predicted.
        predicted_at: the steps just after a prediction.
        prediction_seconds: how long each took, without rendering.
        cloud: (P, 3) the first cloud of the policy, metres.
        denoiser_calls, gradient_calls: of the steering, besides the policy's own.
        first_paths: (N, K, 3) tcp positions commanded by the first steered prediction's samples.
        unsteered: why the policy was left alone though it was to be steered; None if it was not.
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
    denoiser_calls: int = 0
    gradient_calls: int = 0
    first_paths: np.ndarray | None = None
    unsteered: str | None = None

    @property
    def steps(self) -> int:
        """Control steps taken, of 1/30 s each."""
        return len(self.actions)

    @property
    def prediction_ms(self) -> float:
        """Median milliseconds of a prediction, without rendering."""
        return 1000 * float(np.median(self.prediction_seconds))

    @property
    def outcome(self) -> str:
        """The outcome in words, for the end of a video."""
        return f"{'success' if self.success else 'failed'} after {self.steps / 30:.1f} s"


Judge = Callable[[TaskRun], bool | None]
"""Called after each step: True for done, False for failed, None to go on."""


def run_task(
    env: "CalvinEnv",
    agent: Actor,
    task: str,
    max_steps: int = STEPS_PER_TASK,
    on_step: Callable[["CalvinEnv"], None] | None = None,
    judge: Judge | None = None,
    before_prediction: Callable[["CalvinEnv"], None] | None = None,
) -> TaskRun:
    """Let ``agent`` (just reset) act until the oracle sees ``task`` done or no steps are left.

    Args:
        env: in any state; the task is judged against it.
        agent: the policy.
        task: one of `langsteer.calvin.task.TASKS`.
        max_steps: CALVIN's benchmark gives 360.
        on_step: called at the start and after each step, e.g. to film.
        judge: instead of the oracle, see `langsteer.evaluation.protocols`.
        before_prediction: called before each prediction, e.g. to look.
    """
    run, start = TaskRun(task), env.info()
    queue: list[np.ndarray] = []
    _note(run, env, on_step)
    for step in range(max_steps):
        # A prediction is executed to its end: replanning at each step would be another policy.
        if not queue:
            if before_prediction is not None:
                before_prediction(env)
            queue = _predict(run, env, agent, step)
        action = queue.pop(0)
        env.step(action)
        run.actions.append(action)
        _note(run, env, on_step)
        # The oracle compares with the start after every step, as CALVIN's own loop does: a light
        # on for one step counts.
        info = env.info()
        run.tasks_seen |= detect(start, info)
        verdict = (achieved(start, info, task) or None) if judge is None else judge(run)
        if verdict is not None:
            run.success = verdict
            break
        # The next prediction sees this frame as its past; no other frame needs rendering.
        if 0 < len(queue) < agent.n_obs_steps:
            agent.observe(_look(env, agent))
    return run


def _predict(run: TaskRun, env: "CalvinEnv", agent: Actor, step: int) -> list[np.ndarray]:
    observation = _look(env, agent)
    if run.cloud is None:
        seen = "point_cloud" in observation
        run.cloud = (observation if seen else env.observe(point_cloud=True))["point_cloud"]
    begun = time.perf_counter()
    actions = agent.act(observation)
    run.prediction_seconds.append(time.perf_counter() - begun)
    run.predicted_at.append(step)
    return list(actions)


def _look(env: "CalvinEnv", agent: Actor) -> Frame:
    if isinstance(agent, Elsewhere):
        return agent.look(env)
    return env.observe(point_cloud=True, coloured=agent.sees_colours)


def _note(run: TaskRun, env: "CalvinEnv", on_step: Callable[["CalvinEnv"], None] | None) -> None:
    run.robot_obs.append(env.robot_obs)
    run.scene_obs.append(env.scene_obs)
    if on_step is not None:
        on_step(env)
