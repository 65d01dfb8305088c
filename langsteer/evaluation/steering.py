"""The counterfactual comparison of steerings: same starts, same noise, each instruction in turn.

Example::

    python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
        steering.demonstrations=data/demos starts=10

From each start every feasible task is asked for in words, and every method tries it with the noise
of the others. The policy knows no language: what `none` does by itself is the base that the others
are compared with, pair by pair. ``output_dir`` gets ``starts/NNNN.json`` when a start is done, so
that the same command goes on where it was interrupted, and in the end ``results.json``,
``table.md`` and ``report.html``.
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
from langsteer.configuration import compose, require_switch, require_whole, run_command
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.attempts import Attempt, Request, Setting, attempt, video_path
from langsteer.evaluation.contenders import contenders, load_base, load_rival
from langsteer.evaluation.jobs import (
    Settings,
    checkpoint_identity,
    device_name,
    open_env,
    precision_name,
    prepare_folder,
    run_name,
)
from langsteer.evaluation.paired_starts import Start, sample_starts
from langsteer.evaluation.steering_report import write_report
from langsteer.evaluation.steering_table import BASE, tables
from langsteer.files import replacing
from langsteer.policies.agent import Agent
from langsteer.progress import track
from langsteer.resumable import Pieces
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import DemonstrationLibrary, open_library
from langsteer.steering.language import make_reader
from langsteer.steering.steerer import require_steerable
from langsteer.training.checkpoint_util import git_commit

NAME = "evaluate_steering"
USAGE = """
Compare steerings of one unconditional policy: same starts, same noise, each instruction in turn.

  python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
      steering.demonstrations=data/demos starts=10
  ... methods=[none,reference] steering.unguided_last=1     # for all methods but none

The same command again goes on with starts that are not finished yet.
"""


def evaluate(config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]) -> list[Attempt]:
    """Make all attempts that are not made yet and write results, table and report.

    Args:
        config: ``conf/evaluate_steering.yaml``.
        methods: name to steering; ``none`` is the base of the comparison.

    Raises:
        UserError: bad input, found before the first attempt.
    """
    settings = checked_settings(config, methods)
    library = _shared_library(methods)
    scene = config["env"]["scene"]
    _require_steerable(settings["tasks"], methods, library, scene)
    setting = _setting(config, methods, library)
    try:
        number, seed = config["starts"], config["seed"]
        starts = sample_starts(setting.env, settings["tasks"], number, seed, config["together"])
        requests = _requests(starts, config["steering"])
        understood = {one.understood for asked in requests.values() for one in asked}
        _require_steerable(sorted(understood), methods, library, scene)
        folder = Path(config["output_dir"] or default_folder(settings))
        prepare_folder(folder, settings)
        attempts: list[Attempt] = []
        pieces = Pieces(folder / "starts", "start", "evaluating")
        for index, start in enumerate(track(starts, "evaluating", unit="start")):
            films = folder if index < config["videos"] else None
            attempts += _attempts(setting, start, requests[start.number], pieces, films)
        clouds = {start.number: _cloud(setting.env, start) for start in starts}
        environment = setting.env.provenance()
    finally:
        setting.env.close()
    _write(folder, settings, environment, attempts, clouds)
    return attempts


def default_folder(settings: Settings) -> Path:
    """``outputs/steering/<experiment>_<checkpoint>_<digest of the settings>``."""
    return Path("outputs/steering") / run_name(settings["checkpoint"]["path"], settings)


def checked_settings(
    config: Mapping[str, Any], methods: Mapping[str, SteeringConfig]
) -> dict[str, Any]:
    """What the results depend on, checked: the configuration, the methods, the checkpoints."""
    require_whole(config, starts=1, max_steps=1, seed=0, videos=0)
    require_switch("together", config["together"])
    if BASE not in methods:
        raise UserError(f"methods: {BASE!r} is missing, the base that the others are compared with")
    for name in config["controls"]:
        if name not in methods:
            raise UserError(f"controls: {name!r} is none of methods={list(methods)}")
    if not config["tasks"]:
        raise UserError("tasks: none is named, expected at least one")
    if config["checkpoint"] is None:
        raise UserError("no checkpoint: set checkpoint=outputs/checkpoints/.../latest.ckpt")
    rival = config["rival"]
    return {
        **{key: value for key, value in config.items() if key != "output_dir"},
        "tasks": [checked_task(task) for task in named(config["tasks"])],
        "methods": {name: one.to_dict() for name, one in methods.items()},
        "checkpoint": checkpoint_identity(config["checkpoint"]),
        "rival": None if rival is None else checkpoint_identity(rival),
        "precision": precision_name(config),
        "commit": git_commit(),
    }


def named(names: str | Sequence[str]) -> list[str]:
    """A list of names, of which one may stand alone."""
    return [names] if isinstance(names, str) else list(names)


def _require_steerable(
    tasks: Sequence[str],
    methods: Mapping[str, SteeringConfig],
    library: DemonstrationLibrary | None,
    scene: str,
) -> None:
    for task, steering in itertools.product(tasks, methods.values()):
        require_steerable(steering, task, library, scene)


def _setting(
    config: Mapping[str, Any],
    methods: Mapping[str, SteeringConfig],
    library: DemonstrationLibrary | None,
) -> Setting:
    device = device_name(config["device"])
    policy = load_base(config["checkpoint"], device, config["precision"])
    rival = None
    if config["rival"] is not None:
        rival = load_rival(config["rival"], config["rival_guidance"], policy, device)
    tried = contenders(policy, methods, config["controls"], rival)
    return Setting(open_env(config["env"], Agent(policy)), tried, library, config["max_steps"])


def _requests(starts: Sequence[Start], steering: Mapping[str, Any]) -> dict[int, list[Request]]:
    """What is asked for from each start, by its number: each task that can be done there.

    All sentences are read once, and before the first attempt: one that is not understood ends the
    comparison, and no method may be told otherwise than another.
    """
    read = make_reader(steering["encoder"], steering["plugin"])
    requests: dict[int, list[Request]] = {}
    for start in starts:
        for task in start.tasks:
            options = phrasings(task)
            words = options[start.number % len(options)]
            request = Request(task, words, read(words).task)
            requests.setdefault(start.number, []).append(request)
    return requests


def _attempts(
    setting: Setting, start: Start, requests: Sequence[Request], done: Pieces, films: Path | None
) -> list[Attempt]:
    """All attempts from a start, made now or by an earlier run."""
    result = done.read(start.number)
    if result is None:
        made = []
        for request, name in itertools.product(requests, setting.contenders):
            video = films and video_path(films, start.number, request.task, name)
            made.append(asdict(attempt(setting, start, name, request, video)))
        result = {"attempts": made}
        done.write(start.number, result)
    return [Attempt(**one) for one in result["attempts"]]


def _cloud(env: CalvinEnv, start: Start) -> NDArray[np.float32]:
    """(P, 3) what the policy sees first, metres."""
    env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
    cloud: NDArray[np.float32] = env.observe(point_cloud=True)["point_cloud"]
    return cloud


def _shared_library(methods: Mapping[str, SteeringConfig]) -> DemonstrationLibrary | None:
    """The demonstrations that all methods have, opened once."""
    paths = {one.demonstrations for one in methods.values() if one.steers and one.reference}
    if not paths:
        return None
    if len(paths) > 1:
        named_paths = ", ".join(sorted(map(str, paths)))
        raise UserError(f"methods follow different demonstrations: {named_paths}; compare with one")
    (path,) = paths
    assert path is not None  # SteeringConfig refuses a reference without
    return open_library(Path(path))


def _write(
    folder: Path,
    settings: Settings,
    environment: Mapping[str, Any],
    attempts: Sequence[Attempt],
    clouds: Mapping[int, NDArray[np.float32]],
) -> None:
    made_by = {"settings": settings, "environment": environment}
    results = {**made_by, "attempts": [asdict(one) for one in attempts]}
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(results), encoding="utf-8")
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(tables(attempts), encoding="utf-8")
    write_report(folder, attempts, clouds, made_by)
    print(f"{len(attempts)} attempts; {folder / 'report.html'} shows their paths\n")


def compare(arguments: Sequence[str]) -> list[Attempt]:
    """Run the comparison that the command's arguments ask for.

    Raises:
        UserError: as `evaluate`.
    """
    if any(argument.startswith("steering=") for argument in arguments):
        raise UserError("name the steerings to be compared with methods=[none,reference,...]")
    config = compose(NAME, arguments)
    return evaluate(config, {name: _method(name, arguments) for name in named(config["methods"])})


def _method(name: str, arguments: Sequence[str]) -> SteeringConfig:
    """The steering of a name with the command's ``steering.*``; the base has none of them."""
    if name == BASE:
        return SteeringConfig()
    return SteeringConfig.from_dict(compose(NAME, [f"steering={name}", *arguments])["steering"])


def _run(_config: dict[str, Any]) -> None:
    print(tables(compare(sys.argv[1:])), end="")


@exits_cleanly
def main() -> None:
    """The command ``langsteer-evaluate-steering``."""
    run_command(NAME, USAGE, _run)
