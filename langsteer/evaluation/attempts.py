"""One try at a task: what a contender did from a start with a sentence.

Example::

    request = Request("open_drawer", "pull the drawer open", understood="open_drawer")
    one = attempt(setting, start, "reference", request)
    one.success, one.others
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.contenders import Contender
from langsteer.evaluation.paired_starts import Start
from langsteer.evaluation.rollout import run_task
from langsteer.evaluation.video import Film
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3
from langsteer.steering.blocks import KnownScene
from langsteer.steering.demonstrations import DemonstrationLibrary
from langsteer.steering.steerer import Steerer


@dataclass(frozen=True)
class Request:
    """What is asked for: the task, the words for it, and the task that they were read as."""

    task: str
    instruction: str
    understood: str


@dataclass
class Attempt:
    """One method at one task from one start.

    Attributes:
        start: its number.
        method: its name.
        task, instruction: what was asked for.
        understood: the task that the instruction was read as.
        success: whether the asked task was done.
        others: other tasks that the oracle saw done.
        steps: control steps taken.
        prediction_ms: median time of a prediction.
        denoiser_calls, gradient_calls: of a prediction, on average, each for all samples at once;
            the rival's guidance asks the denoiser twice at each step.
        path: (T + 1, 3) measured tcp, metres.
        samples: (N, K, 3) the first prediction's commanded paths, where it steered.
    """

    start: int
    method: str
    task: str
    instruction: str
    understood: str
    success: bool
    others: list[str]
    steps: int
    prediction_ms: float
    denoiser_calls: float
    gradient_calls: float
    path: list[list[float]]
    samples: list[list[list[float]]] = field(default_factory=list)


def video_path(folder: Path, start: int, task: str, method: str) -> Path:
    """Where the film of an attempt lies in the folder of a comparison."""
    return folder / "videos" / f"{start:03d}_{task}_{method}.mp4"


@dataclass(frozen=True)
class Setting:
    """What all attempts share."""

    env: CalvinEnv
    contenders: Mapping[str, Contender]
    library: DemonstrationLibrary | None
    max_steps: int


def attempt(
    setting: Setting,
    start: Start,
    method: str,
    request: Request,
    video: Path | None = None,
) -> Attempt:
    """Give the instruction at the start and let one method try; ``video`` is an MP4 to film to."""
    env, contender = setting.env, setting.contenders[method]
    env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
    steerer = Steerer(contender.steering, setting.library)
    known = KnownScene(env.scene_obs, env.block_names)
    steerer.begin(request.understood, env.commanded_pose, start.seed, known)
    first_samples: list[NDArray[np.float32]] = []

    def predict(policy: DP3, *arguments: Any) -> NDArray[np.float32]:  # noqa: ANN401 - passed on
        actions = steerer.predict(policy, *arguments)
        if steerer.trace is not None and not first_samples:
            first_samples.append(steerer.trace.paths[..., :3])
        return actions

    agent = Agent(contender.policy, predict=predict)
    agent.reset(start.seed)
    agent.instruct(request.instruction)
    film = None if video is None else Film(request.instruction)
    run = run_task(env, agent, request.task, setting.max_steps, on_step=film)
    if film is not None and video is not None:
        film.write(video, run.outcome)
    predictions = len(run.predicted_at)
    steps = contender.policy.config.num_inference_steps + steerer.calls.denoiser / predictions
    return Attempt(
        start=start.number,
        method=method,
        task=request.task,
        instruction=request.instruction,
        understood=request.understood,
        success=run.success,
        others=sorted(run.tasks_seen - {request.task}),
        steps=run.steps,
        prediction_ms=run.prediction_ms,
        denoiser_calls=steps * contender.policy.calls_per_step,
        gradient_calls=steerer.calls.gradients / predictions,
        path=np.stack(run.robot_obs)[:, :3].round(4).tolist(),
        samples=first_samples[0].round(4).tolist() if first_samples else [],
    )
