"""The counterfactual comparison of steerings: same starts, same noise, each instruction in turn.

Example::

    python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
        steering.demonstrations=data/demos starts=10

From each start every feasible task is asked for in words, and every method tries it with the noise
of the others. The policy knows no language: what `none` does by itself is the base that the others
are compared with, pair by pair. ``output_dir`` gets ``results.json`` (after each start, so that an
interrupted run leaves what it has), ``table.md`` and ``report.html``.
"""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import checked_task
from langsteer.configuration import compose, run_command
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.contenders import Contender, contenders
from langsteer.evaluation.paired_starts import Start, sample_starts
from langsteer.evaluation.rollout import run_task
from langsteer.evaluation.steering_report import write_report, write_table
from langsteer.evaluation.video import Film
from langsteer.files import replacing
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3
from langsteer.policies.loading import load_policy
from langsteer.progress import track
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import DemonstrationLibrary, open_library
from langsteer.steering.language import Reader, make_reader
from langsteer.steering.steerer import Steerer, require_steerable

NAME = "evaluate_steering"
USAGE = """
Compare steerings of one unconditional policy: same starts, same noise, each instruction in turn.

  python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
      steering.demonstrations=data/demos starts=10
  ... methods=[none,reference] steering.unguided_last=1     # for all methods that leave it open
"""


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
        denoiser_calls, gradient_calls: of a prediction, on average, each for all samples at once.
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


@dataclass(frozen=True)
class Setting:
    """What all attempts share."""

    env: CalvinEnv
    contenders: Mapping[str, Contender]
    library: DemonstrationLibrary | None
    read: Reader
    max_steps: int


def attempt(
    setting: Setting,
    start: Start,
    method: str,
    task: str,
    instruction: str,
    video: Path | None = None,
) -> Attempt:
    """Give the instruction at the start and let one method try; ``video`` is an MP4 to film to."""
    understood = setting.read(instruction).task
    env, contender = setting.env, setting.contenders[method]
    env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
    steerer = Steerer(contender.steering, setting.library)
    steerer.begin(understood, env.robot_obs, start.seed, env.scene_obs)
    first_samples: list[NDArray[np.float32]] = []

    def predict(policy: DP3, *arguments: Any) -> NDArray[np.float32]:  # noqa: ANN401 - passed on
        actions = steerer.predict(policy, *arguments)
        if steerer.trace is not None and not first_samples:
            first_samples.append(steerer.trace.paths[..., :3])
        return actions

    agent = Agent(contender.policy, predict=predict)
    agent.reset(start.seed)
    film = None if video is None else Film(instruction)
    run = run_task(env, agent, task, setting.max_steps, on_step=film)
    if film is not None and video is not None:
        film.write(video, run.outcome)
    predictions = len(run.predicted_at)
    own_steps = contender.policy.config.num_inference_steps
    return Attempt(
        start=start.number,
        method=method,
        task=task,
        instruction=instruction,
        understood=understood,
        success=run.success,
        others=sorted(run.tasks_seen - {task}),
        steps=run.steps,
        prediction_ms=run.prediction_ms,
        denoiser_calls=own_steps + steerer.calls.denoiser / predictions,
        gradient_calls=steerer.calls.gradients / predictions,
        path=np.stack(run.robot_obs)[:, :3].round(4).tolist(),
        samples=first_samples[0].round(4).tolist() if first_samples else [],
    )


def evaluate(config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]) -> list[Attempt]:
    """Run all attempts of the configuration and write results, table and report.

    Args:
        config: ``conf/evaluate_steering.yaml``.
        methods: name to steering; ``none`` is the base of the comparison.

    Raises:
        UserError: bad input, found before the first attempt.
    """
    _check(config, methods)
    tasks = [checked_task(task) for task in config["tasks"]]
    library = _shared_library(methods)
    for task, steering in itertools.product(tasks, methods.values()):
        require_steerable(steering, task, library)
    policy = load_policy(config["checkpoint"], config["device"])
    setting = Setting(
        _environment(config["env"], policy),
        contenders(policy, methods, config["controls"]),
        library,
        make_reader(config["steering"]["encoder"], config["steering"]["plugin"]),
        config["max_steps"],
    )
    folder = Path(config["output_dir"])
    attempts: list[Attempt] = []
    clouds: dict[int, NDArray[np.float32]] = {}
    try:
        starts = sample_starts(
            setting.env, tasks, config["starts"], config["seed"], config["together"]
        )
        for index, start in enumerate(track(starts, "evaluating", unit="start")):
            setting.env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
            clouds[start.number] = setting.env.observe(point_cloud=True)["point_cloud"]
            for task, name in itertools.product(start.tasks, setting.contenders):
                options = phrasings(task)
                words = options[start.number % len(options)]
                video = video_path(folder, start.number, task, name)
                filmed = video if index < config["videos"] else None
                attempts.append(attempt(setting, start, name, task, words, filmed))
            _save(folder, config, methods, setting.env, attempts)
    finally:
        setting.env.close()
    write_table(folder / "table.md", attempts)
    write_report(folder / "report.html", attempts, clouds)
    return attempts


def video_path(folder: Path, start: int, task: str, method: str) -> Path:
    """Where the film of an attempt lies in the folder of a comparison."""
    return folder / "videos" / f"{start:03d}_{task}_{method}.mp4"


def _check(config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]) -> None:
    if config["checkpoint"] is None:
        raise UserError("no checkpoint: set checkpoint=outputs/checkpoints/.../latest.ckpt")
    for name in ("starts", "max_steps"):
        if not isinstance(config[name], int) or config[name] < 1:
            raise UserError(f"{name}={config[name]}: expected a whole number from 1 on")
    if "none" not in methods:
        raise UserError("methods: 'none' is missing, the base that the others are compared with")
    for name in config["controls"]:
        if name not in methods:
            raise UserError(f"controls: {name!r} is none of methods={list(methods)}")


def _environment(env: Mapping[str, Any], policy: DP3) -> CalvinEnv:
    pipeline = Agent(policy).pipeline
    return CalvinEnv(
        env["scene"], env["assets_path"], env["renderer"], pipeline, led_reset=env["led_reset"]
    )


def _shared_library(methods: Mapping[str, SteeringConfig]) -> DemonstrationLibrary | None:
    """The demonstrations, opened once; all methods have the same."""
    paths = {one.demonstrations for one in methods.values() if one.steers and one.reference}
    if not paths:
        return None
    (path,) = paths
    assert path is not None  # SteeringConfig refuses a reference without
    return open_library(Path(path))


def _save(
    folder: Path,
    config: Mapping[str, Any],
    methods: Mapping[str, SteeringConfig],
    env: CalvinEnv,
    attempts: Sequence[Attempt],
) -> None:
    results = {
        "config": dict(config),
        "methods": {name: one.to_dict() for name, one in methods.items()},
        "environment": env.provenance(),
        "attempts": [asdict(one) for one in attempts],
    }
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(results))


def compare(arguments: Sequence[str]) -> list[Attempt]:
    """Run the comparison that the command's arguments ask for.

    Raises:
        UserError: as `evaluate`.
    """
    if any(argument.startswith("steering=") for argument in arguments):
        raise UserError("name the steerings to be compared with methods=[none,reference,...]")
    config = compose(NAME, arguments)
    methods = {
        name: SteeringConfig.from_dict(compose(NAME, [f"steering={name}", *arguments])["steering"])
        for name in config["methods"]
    }
    return evaluate(config, methods)


def _run(config: dict[str, Any]) -> None:
    attempts = compare(sys.argv[1:])
    folder = Path(config["output_dir"])
    print((folder / "table.md").read_text(), end="")
    print(f"\n{len(attempts)} attempts; {folder / 'report.html'} shows their paths")


@exits_cleanly
def main() -> None:
    """The command ``langsteer-evaluate-steering``."""
    run_command(NAME, USAGE, _run)
