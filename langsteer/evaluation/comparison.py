"""The counterfactual comparison of steerings: same starts, same noise, each instruction in turn.

Example::

    python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \\
        steering.demonstrations=data/demos starts=10

From each start every feasible task is asked for in words, and every method tries it with the noise
of the others. The policy is told nothing. Its unsteered attempts, `none`, are the base of the
comparison, pair by pair. Each steering leads a blank network, too: only successes beyond it are the
policy's own. ``starts/NNNN.json`` marks a start done; in the end come ``results.json``,
``table.md`` and ``report.html``.
"""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import checked_task
from langsteer.configuration import compose, run_command
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError, exits_cleanly
from langsteer.evaluation.attempts import (
    Attempt,
    Contender,
    PairedStart,
    Request,
    attempt,
    contenders,
    load_base,
    load_rival,
    sample_starts,
)
from langsteer.evaluation.comparison_report import video_path, write_report
from langsteer.evaluation.player import one_thread_of_many, open_env, require_steerable
from langsteer.evaluation.protocols import CALVIN, PROTOCOLS, STEPS, behaviour_of
from langsteer.evaluation.rollout import Judge
from langsteer.evaluation.run import RunSettings, open_run
from langsteer.evaluation.table import BASE, tables
from langsteer.policies.agent import Agent
from langsteer.policies.cpu_threads import choose_threads
from langsteer.policies.loading import checkpoint_identity, device_name
from langsteer.resumable import Pieces, Result, Share, run_pieces
from langsteer.settings import Count, one_of
from langsteer.steering.config import SteeringConfig
from langsteer.steering.language import make_reader


class _Start(TypedDict):
    """The result of a start."""

    attempts: list[Attempt]


NAME = "evaluate_steering"


@dataclass(frozen=True)
class ComparisonSettings(RunSettings):
    """See ``conf/evaluate_steering.yaml``.

    The methods come beside it, each a `SteeringConfig`. All share ``encoder`` and ``plugin``, the
    reader of instructions. Made from plain values, ``max_steps`` of None is the protocol's.
    """

    checkpoint: str | None
    rival: str | None
    rival_guidance: float | None
    rival_methods: tuple[str, ...]
    protocol: Annotated[str, one_of(CALVIN, *PROTOCOLS)]
    tasks: tuple[str, ...]
    controls: tuple[str, ...] | None
    starts: Count
    together: bool
    shard: str
    encoder: str
    plugin: str | None

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """`Settings.from_dict`, with the protocol's number of steps."""
        steps = STEPS.get(str(values.get("protocol")), STEPS_PER_TASK)
        given = values.get("max_steps")
        return super().from_dict({**values, "max_steps": steps if given is None else given})

    def check(self) -> None:
        """Raise `UserError` for an unknown or a missing name."""
        Share.parse(self.shard)
        self.require(bool(self.tasks), "tasks", "at least one")
        for task in self.tasks:
            checked_task(task)
            if self.protocol != CALVIN:
                behaviour_of(task)
        several = self.together and self.protocol != CALVIN
        self.require(not several, "together", f"false: a start of {self.protocol} is of one task")
        if self.checkpoint is None:
            raise UserError("no checkpoint: set checkpoint=outputs/checkpoints/.../latest.ckpt")
        alone = self.rival is None and bool(self.rival_methods)
        self.require(not alone, "rival_methods", "[] without rival")

    def controlled(self, methods: Mapping[str, SteeringConfig]) -> tuple[str, ...]:
        """The methods for a blank network, too: by default all that steer."""
        if self.controls is None:
            return tuple(name for name, one in methods.items() if one.steers)
        return self.controls

    def identity(self) -> dict[str, Any]:
        """`RunSettings.identity`, and the checkpoints'."""
        rival = None if self.rival is None else checkpoint_identity(self.rival)
        checkpoint = checkpoint_identity(self.checkpoint)
        return {**super().identity(), "checkpoint": checkpoint, "rival": rival}


def evaluate(
    settings: ComparisonSettings, methods: Mapping[str, SteeringConfig]
) -> list[Attempt] | None:
    """Make the missing attempts of this job; returns all, or None while other jobs' are missing.

    Args:
        settings: of the comparison.
        methods: name to steering; ``none`` is the base of the comparison.

    Raises:
        UserError: bad input, found before the first attempt.
    """
    # Faults of the settings show before a policy is loaded or a start is drawn.
    _check_methods(methods, settings)
    identity = settings.identity() | {
        "methods": {name: one.to_dict() for name, one in methods.items()}
    }
    _require_steerable(settings.tasks, methods, settings.env.scene)
    env, tried = _open(settings, methods)
    try:
        # The starts come from the seed alone: every job and every resume draws the same ones.
        starts = sample_starts(
            env,
            settings.tasks,
            settings.starts,
            settings.seed,
            settings.together,
            settings.protocol,
        )
        requests = _requests(starts, settings)
        # A misread sentence steers to another task than asked: that must be possible as well.
        understood = {one.understood for asked in requests.values() for one in asked}
        _require_steerable(sorted(understood), methods, settings.env.scene)
        folder = open_run(settings.output_dir, "outputs/steering", identity)
        pieces = Pieces(
            folder / "starts",
            "start",
            "evaluating",
            kind=_Start,
            contradiction=partial(_contradiction, requests, list(tried)),
        )
        make_worker = partial(_Starts, settings, methods, starts, requests, folder)
        # One process already has a simulator open and the policies loaded.
        if settings.num_workers == 1:
            make_worker = partial(make_worker, opened=(env, tried))
        done = run_pieces(
            pieces,
            [start.number for start in starts],
            make_worker,
            settings.num_workers,
            Share.parse(settings.shard),
        )
        print(f"{folder}: {len(done)} of {len(starts)} starts are done")
        if len(done) < len(starts):
            return None
        # Results and report are made of all starts, those of other jobs included.
        clouds = {start.number: _cloud(env, start) for start in starts}
        made_by = {"settings": identity, "environment": env.provenance()}
    finally:
        env.close()
    attempts = [Attempt(**one) for result in done.values() for one in result["attempts"]]
    write_report(folder, made_by, attempts, clouds)
    print(f"{len(attempts)} attempts; {folder / 'report.html'} shows their paths\n")
    return attempts


def _contradiction(
    requests: Mapping[int, Sequence[Request]], methods: Sequence[str], number: int, result: Result
) -> str:
    """What of a result cannot be that of a start."""
    wanted = [
        (number, method, one.task, one.instruction)
        for one, method in itertools.product(requests[number], methods)
    ]
    keys = ("start", "method", "task", "instruction")
    found = [tuple(one[key] for key in keys) for one in result["attempts"]]
    if found != wanted:
        other = next((one for one in found if one not in wanted), "")
        return f"{len(found)} attempts, expected {len(wanted)} {other!r:.200}".rstrip()
    return ""


def _open(
    settings: ComparisonSettings, methods: Mapping[str, SteeringConfig]
) -> tuple[CalvinEnv, dict[str, Contender]]:
    """The simulator and the contenders."""
    assert settings.checkpoint is not None  # or the settings would not be
    device = device_name(settings.device)
    policy = load_base(settings.checkpoint, device, settings.precision)
    choose_threads(policy, policy.device, os.environ)
    rival = None
    if settings.rival is not None:
        rival = load_rival(settings.rival, settings.rival_guidance, policy, device)
    tried = contenders(policy, methods, settings.controlled(methods), rival, settings.rival_methods)
    return open_env(settings.env, Agent(policy)), tried


class _Starts:
    """Makes all attempts from starts, by their numbers."""

    def __init__(
        self,
        settings: ComparisonSettings,
        methods: Mapping[str, SteeringConfig],
        starts: Sequence[PairedStart],
        requests: Mapping[int, Sequence[Request]],
        folder: Path,
        opened: tuple[CalvinEnv, dict[str, Contender]] | None = None,
    ) -> None:
        one_thread_of_many()
        self._settings, self._requests, self._folder = settings, requests, folder
        self._starts = {start.number: start for start in starts}
        self._filmed = [start.number for start in starts[: settings.videos]]
        self._env, self._contenders = opened or _open(settings, methods)

    def do(self, number: int) -> Result:
        """All attempts from a start."""
        made = []
        for request, name in itertools.product(self._requests[number], self._contenders):
            video = video_path(self._folder, number, request.task, name)
            # Every method begins at the same start with the same noise: only the steering differs.
            one = attempt(
                self._env,
                self._contenders[name],
                name,
                self._starts[number],
                request,
                self._settings.max_steps,
                video if number in self._filmed else None,
                self._judge(request.task),
            )
            made.append(asdict(one))
        return {"attempts": made}

    def _judge(self, task: str) -> Judge | None:
        """Who decides on success: None is CALVIN's oracle."""
        protocol = PROTOCOLS.get(self._settings.protocol)
        return None if protocol is None else protocol.judge_of(task, self._env.block_names)

    def close(self) -> None:
        """The simulator is closed by whoever opened it."""


def _require_steerable(
    tasks: Sequence[str], methods: Mapping[str, SteeringConfig], scene: str
) -> None:
    for steering in methods.values():
        require_steerable(steering, tasks, scene)


def _check_methods(methods: Mapping[str, SteeringConfig], settings: ComparisonSettings) -> None:
    """Raise `UserError` for a missing method, or for different demonstrations."""
    if BASE not in methods:
        raise UserError(f"methods: {BASE!r} is missing, the base that the others are compared with")
    for key, names in (
        ("controls", settings.controls or ()),
        ("rival_methods", settings.rival_methods),
    ):
        for name in names:
            if name not in methods:
                raise UserError(f"{key}: {name!r} is none of methods={list(methods)}")
    paths = {one.demonstrations for one in methods.values() if one.steers and one.reference}
    if len(paths) > 1:
        named = ", ".join(sorted(map(str, paths)))
        raise UserError(f"methods follow different demonstrations: {named}; compare with one")


def _requests(
    starts: Sequence[PairedStart], settings: ComparisonSettings
) -> dict[int, list[Request]]:
    """The requests of each start, by its number: one for each feasible task.

    All sentences are read once, before the first attempt. An unclear one ends the comparison, and
    all methods are told the same.
    """
    read = make_reader(settings.encoder, settings.plugin)
    requests: dict[int, list[Request]] = {}
    for start in starts:
        for task in start.tasks:
            options = phrasings(task)
            # Starts take turns among the phrasings, so no single wording decides.
            words = options[start.number % len(options)]
            request = Request(task, words, read(words).task)
            requests.setdefault(start.number, []).append(request)
    return requests


def _cloud(env: CalvinEnv, start: PairedStart) -> NDArray[np.float32]:
    """(P, 3) what the policy sees first, metres."""
    start.enter(env)
    cloud: NDArray[np.float32] = env.observe(point_cloud=True)["point_cloud"]
    return cloud


def compare(arguments: Sequence[str]) -> list[Attempt] | None:
    """Run the comparison of the command's arguments.

    Raises:
        UserError: as `evaluate`.
    """
    if any(argument.startswith("steering=") for argument in arguments):
        raise UserError("name the steerings to be compared with methods=[none,reference,...]")
    config = compose(NAME, arguments)
    # Keys of steering.* hold for all methods but the base; by themselves they are no steering.
    shared, names = config.pop("steering"), config.pop("methods")
    reading = {"encoder": shared["encoder"], "plugin": shared["plugin"]}
    names = [names] if isinstance(names, str) else names
    methods = {name: _method(name, arguments) for name in names}
    return evaluate(ComparisonSettings.from_dict({**config, **reading}), methods)


def _method(name: str, arguments: Sequence[str]) -> SteeringConfig:
    """The steering of a name with the command's ``steering.*``; the base has none of them."""
    if name == BASE:
        return SteeringConfig()
    return SteeringConfig.from_dict(compose(NAME, [f"steering={name}", *arguments])["steering"])


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/evaluate_steering.py`` and ``langsteer-evaluate-steering``."""
    run_command(NAME, _run)


def _run(_config: dict[str, Any]) -> None:
    attempts = compare(sys.argv[1:])
    if attempts is None:
        print("the rest is left to other shards; the last one to finish writes the results")
        return
    print(tables(attempts), end="")
