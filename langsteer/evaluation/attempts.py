"""Attempts of a comparison: their starts, their contenders, their outcomes.

Example::

    for start in sample_starts(env, ["open_drawer", "turn_on_led"], 10, seed=1000, together=True):
        env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
    for name, contender in contenders(policy, methods, ["pointing"], rival).items(): ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.benchmark import initial_states, is_feasible
from langsteer.calvin.dataset import METRES_PER_UNIT
from langsteer.calvin.layout import Layout
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.player import UNSTEERED, Player
from langsteer.evaluation.protocol_starts import SETTINGS, paper_scene
from langsteer.evaluation.protocols import CALVIN
from langsteer.evaluation.rollout import Judge
from langsteer.experts.starts import benchmark_robot_obs, has_room, sample_scene
from langsteer.experts.view import View, read_layout
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3
from langsteer.policies.loading import load_policy
from langsteer.policies.untrained import blank_network
from langsteer.steering.config import SteeringConfig
from langsteer.steering.feasibility import why_infeasible

RIVAL = "language"
"""The name of the policy trained with sentences, and told them."""
BLANK = ", blank network"
"""Ends the name of a control; see `blank_of`."""
# Besides the seed: no demonstration of the same seed begins at one of these starts.
_STREAM = 0x57EE
_DISPLACEMENT = np.array([0.10, 0.08, 0.06])  # metres at most, along x, y and z
_DISPLACEMENT_STEPS = 20
_MOST_DRAWS = 50
"""Draws at most, for each start wanted."""


@dataclass(frozen=True)
class PairedStart:
    """The common start of all methods' attempts.

    Attributes:
        number: of the draw.
        robot_obs, scene_obs: (15,) and (24,) for ``CalvinEnv.reset``.
        seed: of the noise.
        tasks: feasible ones of the comparison.
    """

    number: int
    robot_obs: NDArray[np.float64]
    scene_obs: NDArray[np.float64]
    seed: int
    tasks: tuple[str, ...]

    def enter(self, env: CalvinEnv) -> None:
        """Reset an environment to the start."""
        env.reset(options={"robot_obs": self.robot_obs, "scene_obs": self.scene_obs})


def sample_starts(
    env: CalvinEnv,
    tasks: Sequence[str],
    count: int,
    seed: int,
    together: bool,
    protocol: str = CALVIN,
) -> list[PairedStart]:
    """The first ``count`` drawn starts with a feasible task; ``together``: with all feasible.

    Under a paper's protocol a start is of one task, and tasks take turns.

    Raises:
        UserError: there are too few of them.
    """
    layout = read_layout(env)
    found: list[PairedStart] = []
    least = len(tasks) if together else 1
    for number in range(_MOST_DRAWS * count):
        # A start without a feasible task would only count failures nobody can avoid.
        if protocol == CALVIN:
            start = _sample_start(env, layout, seed, number, tasks)
        else:
            start = _paper_start(env, layout, seed, number, tasks[number % len(tasks)], protocol)
        if len(start.tasks) >= least:
            found.append(start)
        if len(found) == count:
            return found
    which = "all" if together else "any"
    raise UserError(
        f"of {_MOST_DRAWS * count} starts only {len(found)} allow {which} of {', '.join(tasks)}; "
        "change tasks, or together"
    )


def _sample_start(
    env: CalvinEnv, layout: Layout, seed: int, number: int, tasks: Sequence[str]
) -> PairedStart:
    """A symbolic state of the benchmark, with the hand displaced by up to 10, 8 and 6 cm.

    A task is feasible if the benchmark's rules and the oracle allow it. A block to be pushed needs
    room, too.
    """
    random = np.random.default_rng([_STREAM, seed, number])
    states = initial_states()
    state = states[random.integers(len(states))]
    scene_obs = sample_scene(state, layout, random)
    # The hand leaves its usual place, or every attempt would begin as the demonstrations do.
    _settle(env, scene_obs, random.uniform(-1, 1, 3) * _DISPLACEMENT)
    info, view = env.info(), View(layout, env.robot_obs, env.scene_obs)
    # Judged after the blocks came to rest: they may have moved.
    feasible = tuple(
        task
        for task in tasks
        if is_feasible(state, (task,)) and why_infeasible(task, info) is None
        if has_room(task, view)
    )
    noise_seed = int(random.integers(2**31))
    return PairedStart(number, env.robot_obs, env.scene_obs, noise_seed, feasible)


def _paper_start(
    env: CalvinEnv, layout: Layout, seed: int, number: int, task: str, protocol: str
) -> PairedStart:
    """A start drawn for one task, as the paper's code does."""
    random = np.random.default_rng([_STREAM, seed, number])
    scene_obs = paper_scene(protocol, task, layout, random)
    moves = SETTINGS[protocol].displaces_hand
    _settle(env, scene_obs, moves * random.uniform(-1, 1, 3) * _DISPLACEMENT)
    noise_seed = int(random.integers(2**31))
    return PairedStart(number, env.robot_obs, env.scene_obs, noise_seed, (task,))


def _settle(
    env: CalvinEnv, scene_obs: NDArray[np.float64], displacement: NDArray[np.float64]
) -> None:
    """Reset, and displace the hand (3,) by metres from the benchmark's pose."""
    env.reset(options={"robot_obs": benchmark_robot_obs(), "scene_obs": scene_obs})
    action = np.zeros(7)
    action[:3] = displacement / (METRES_PER_UNIT * _DISPLACEMENT_STEPS)
    action[6] = -1.0
    # Meanwhile the blocks come to rest. A block still falling touches nothing, and the oracle
    # counts a push or a lift only of a block at rest on something.
    for _ in range(_DISPLACEMENT_STEPS):
        env.step(action)


@dataclass(frozen=True)
class Contender:
    """A policy, how it is steered, and whether it is told the sentence as well."""

    policy: DP3
    steering: SteeringConfig
    tells: bool = False


def blank_of(method: str) -> str:
    """The name of a method's control: the same steering of a blank network."""
    return method + BLANK


def contenders(
    policy: DP3,
    methods: Mapping[str, SteeringConfig],
    controls: Sequence[str],
    rival: DP3 | None = None,
    rival_methods: Sequence[str] = (),
) -> dict[str, Contender]:
    """Each method; each control, the same steering of a network that knows nothing; the rival.

    The rival was trained with sentences and is told the instruction. It acts by itself, and steered
    as well by each of ``rival_methods``.
    """
    found = {name: Contender(policy, steering) for name, steering in methods.items()}
    blank = blank_network(policy)
    for name in controls:
        found[blank_of(name)] = Contender(blank, methods[name])
    if rival is not None:
        found[RIVAL] = Contender(rival, UNSTEERED, tells=True)
        for name in rival_methods:
            found[f"{RIVAL}, {name}"] = Contender(rival, methods[name], tells=True)
    return found


def load_base(path: str | Path, device: str = "cpu", precision: str = "auto") -> DP3:
    """The policy to be steered.

    One that follows sentences has them withheld: it does what it likes to do, as it was trained to
    with a share of its sentences. Then there is nothing that classifier-free guidance could
    overstate, and the network is asked once a step.
    """
    policy = load_policy(path, device, precision=precision)
    if policy.language is not None:
        policy.language.scale = 1.0
    return policy


def load_rival(path: str | Path, guidance: float | None, base: DP3, device: str = "cpu") -> DP3:
    """The language-conditioned policy, steering's rival.

    Args:
        path: its checkpoint.
        guidance: scale of its classifier-free guidance; the checkpoint's own if None.
        base: the policy to be steered.
        device: of the rival; it computes in the base's precision.

    Raises:
        UserError: it follows no sentences, or sees other point clouds than the base.
    """
    rival = load_policy(path, device, precision=base.precision.name)
    if rival.language is None:
        raise UserError(
            f"rival={path}: this policy follows no sentences; train one with policy=steering_rival"
        )
    rival.check_pipeline(Agent(base).pipeline)
    if guidance is not None:
        rival.language.scale = guidance
    return rival


@dataclass(frozen=True)
class Request:
    """A task asked for, its words, and the reader's understanding of them, a task again."""

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
        understood: the instruction, as read: a task.
        success: whether the asked task was done.
        others: other tasks seen done by the oracle.
        steps: control steps taken.
        prediction_ms: median time of a prediction.
        denoiser_calls, gradient_calls: of a prediction, on average, each for all samples at once;
            the rival's guidance asks the denoiser twice at each step.
        path: (T + 1, 3) measured tcp, metres.
        samples: (N, K, 3) commanded paths of the first prediction; none unsteered.
        unsteered: why the policy was left alone: its block is hidden from the cameras.
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
    unsteered: str | None = None


def attempt(
    env: CalvinEnv,
    contender: Contender,
    name: str,
    start: PairedStart,
    request: Request,
    max_steps: int,
    video: Path | None = None,
    judge: Judge | None = None,
) -> Attempt:
    """Give the instruction at the start and let one method try.

    Args:
        video: an MP4 to film to.
        judge: instead of the oracle.
    """
    start.enter(env)
    player = Player(env, Agent(contender.policy), contender.steering, contender.tells)
    run = player.play(
        request.task, request.instruction, start.seed, max_steps, request.understood, video, judge
    )
    predictions, policy = len(run.predicted_at), contender.policy
    # Costs are counted in evaluations of the denoiser: times differ between machines.
    steps = policy.config.num_inference_steps + run.denoiser_calls / predictions
    samples = [] if run.first_paths is None else run.first_paths.round(4).tolist()
    return Attempt(
        start=start.number,
        method=name,
        task=request.task,
        instruction=request.instruction,
        understood=request.understood,
        success=run.success,
        others=sorted(run.tasks_seen - {request.task}),
        steps=run.steps,
        prediction_ms=run.prediction_ms,
        denoiser_calls=steps * policy.calls_per_step,
        gradient_calls=run.gradient_calls / predictions,
        path=np.stack(run.robot_obs)[:, :3].round(4).tolist(),
        samples=samples,
        unsteered=run.unsteered,
    )
