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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import checked_task
from langsteer.configuration import compose, run_command
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.attempts import Attempt, Setting, attempt, video_path
from langsteer.evaluation.contenders import contenders, load_rival
from langsteer.evaluation.paired_starts import Start, sample_starts
from langsteer.evaluation.steering_report import write_report
from langsteer.evaluation.steering_table import write_table
from langsteer.files import replacing
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3
from langsteer.policies.loading import load_policy
from langsteer.progress import track
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import DemonstrationLibrary, open_library
from langsteer.steering.language import make_reader
from langsteer.steering.steerer import require_steerable

NAME = "evaluate_steering"
USAGE = """
Compare steerings of one unconditional policy: same starts, same noise, each instruction in turn.

  python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
      steering.demonstrations=data/demos starts=10
  ... methods=[none,reference] steering.unguided_last=1     # for all methods that leave it open
"""


def evaluate(config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]) -> list[Attempt]:
    """Run all attempts of the configuration and write results, table and report.

    Args:
        config: ``conf/evaluate_steering.yaml``.
        methods: name to steering; ``none`` is the base of the comparison.

    Raises:
        UserError: bad input, found before the first attempt.
    """
    _check(config, methods)
    setting = _setting(config, methods)
    folder = Path(config["output_dir"])
    made_by = _provenance(config, methods, setting.env)
    attempts: list[Attempt] = []
    clouds: dict[int, NDArray[np.float32]] = {}
    try:
        starts = sample_starts(
            setting.env, config["tasks"], config["starts"], config["seed"], config["together"]
        )
        for index, start in enumerate(track(starts, "evaluating", unit="start")):
            setting.env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
            clouds[start.number] = setting.env.observe(point_cloud=True)["point_cloud"]
            filmed_to = folder if index < config["videos"] else None
            attempts += _attempts_from(start, setting, filmed_to)
            _save(folder / "results.json", made_by, attempts)
    finally:
        setting.env.close()
    write_table(folder / "table.md", attempts)
    write_report(folder, attempts, clouds, made_by)
    return attempts


def _setting(config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]) -> Setting:
    """The simulator, the contenders and what they share, all of them fit for all tasks."""
    library = _shared_library(methods)
    for task, steering in itertools.product(config["tasks"], methods.values()):
        require_steerable(steering, checked_task(task), library)
    policy = load_policy(config["checkpoint"], config["device"])
    rival = None
    if config["rival"] is not None:
        rival = load_rival(config["rival"], config["rival_guidance"], policy, config["device"])
    return Setting(
        _environment(config["env"], policy),
        contenders(policy, methods, config["controls"], rival),
        library,
        make_reader(config["steering"]["encoder"], config["steering"]["plugin"]),
        config["max_steps"],
    )


def _attempts_from(start: Start, setting: Setting, filmed_to: Path | None) -> list[Attempt]:
    """Every feasible task asked for, in words that go with the start, and tried by everyone."""
    found = []
    for task, name in itertools.product(start.tasks, setting.contenders):
        options = phrasings(task)
        words = options[start.number % len(options)]
        video = None if filmed_to is None else video_path(filmed_to, start.number, task, name)
        found.append(attempt(setting, start, name, task, words, video))
    return found


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


def _provenance(
    config: Mapping[str, Any], methods: Mapping[str, SteeringConfig], env: CalvinEnv
) -> dict[str, Any]:
    """What made the results, in plain values."""
    return {
        "config": dict(config),
        "methods": {name: one.to_dict() for name, one in methods.items()},
        "environment": env.provenance(),
    }


def _save(path: Path, made_by: Mapping[str, Any], attempts: Sequence[Attempt]) -> None:
    results = {**made_by, "attempts": [asdict(one) for one in attempts]}
    with replacing(path) as temporary:
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
