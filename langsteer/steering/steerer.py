"""Steer a policy towards a task for one rollout: retrieval, guidance, ranking.

Example::

    steerer = Steerer(SteeringConfig(reference=1.0, strength=1.0, demonstrations="data/demos"))
    steerer.begin("open_drawer", env.commanded_pose)
    agent = Agent(policy, predict=steerer.predict)      # predicts (8, 7) actions, steered

The steerer sums up the actions it returned, to know the commanded pose. So the caller must execute
all of them before the next prediction. Rollouts do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.calvin.layout import Layout
from langsteer.calvin.task import checked_task
from langsteer.policies.dp3 import DP3
from langsteer.policies.dp3.ddim import Guidance
from langsteer.steering.blocks import KnownScene, Scene, block_place
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import DemonstrationLibrary, open_library
from langsteer.steering.following import Following
from langsteer.steering.guidance import Calls, GradientGuidance, StochasticGuidance
from langsteer.steering.objectives import Objective, Sum
from langsteer.steering.path import CommandedPose, commanded_path
from langsteer.steering.pointer import Pointer
from langsteer.steering.sight import Look
from langsteer.steering.source import Moment, Source
from langsteer.steering.waypoint_map import WaypointMap
from langsteer.steering.waypoints import Joints, require_places, waypoints

_SEED_OF_ZERO = 0x57EE2


@dataclass
class Trace:
    """What the last prediction weighed: paths (N, K, 7), energies (N,), and the chosen index."""

    paths: NDArray[np.float32]
    energies: NDArray[np.float32]
    chosen: int


@dataclass
class _Rollout:
    """What is known since `Steerer.begin`."""

    hand: CommandedPose
    sources: list[Source]
    pointer: Pointer | None
    seed: int
    predictions: int = 0
    calls: Calls = field(default_factory=Calls)


class Steerer:
    """Predicts actions that lead to a task.

    Args:
        config: how to steer.
        library: demonstrations, to open once for many steerers. None opens those of the config.

    Attributes:
        trace: what the last prediction weighed; None without steering.
        first_trace: what the first prediction since `begin` weighed.
    """

    def __init__(self, config: SteeringConfig, library: DemonstrationLibrary | None = None) -> None:
        self.config = config
        if library is None and config.steers and config.reference:
            assert config.demonstrations is not None
            library = open_library(Path(config.demonstrations))
        self.library = library
        self.trace: Trace | None = None
        self.first_trace: Trace | None = None
        self._rollout: _Rollout | None = None

    @property
    def calls(self) -> Calls:
        """Gradients and extra evaluations of the denoiser since `begin`."""
        return self._begun.calls

    @property
    def _begun(self) -> _Rollout:
        if self._rollout is None:
            raise ValueError("Steerer.begin must be called before predictions")
        return self._rollout

    def begin(
        self,
        task: str,
        commanded: NDArray[np.floating],
        seed: int = 0,
        scene: KnownScene | None = None,
        layout: Layout | None = None,
        look: Look | None = None,
    ) -> None:
        """Head for a task from here.

        Args:
            task: one of CALVIN's.
            commanded: (6,) `CalvinEnv.commanded_pose`. The next relative action is added to it.
                For an arm at rest it is the tcp's pose.
            seed: of the further samples' noise and of repetitions.
            scene: read only with ``privileged``.
            layout: where the scene's parts are mounted, for ``pointing``.
            look: what the cameras show now, for ``pointing``.

        Raises:
            OccludedError: a block that is to be pointed at is hidden from both cameras.
            UserError: the task has no demonstration or no known places, or it is about a block
                and the place may not be read.
        """
        hand = CommandedPose(commanded)
        # Everything the task needs is looked up once here: predictions only follow it.
        known = scene if self.config.privileged else None
        sources = self._by_places(task, hand, known)
        pointer = self._pointer(task, known, layout, look) if self.config.points else None
        if pointer is not None:
            sources.append(pointer)
        self._rollout = _Rollout(hand, sources, pointer, seed)
        self.trace = self.first_trace = None

    @property
    def wants_look(self) -> bool:
        """Whether `show` makes a difference to the next prediction."""
        pointer = self._begun.pointer
        return pointer is not None and pointer.looks

    def show(self, look: Look) -> None:
        """Show what the cameras show now, before a prediction that wants it."""
        if self._begun.pointer is not None:
            self._begun.pointer.show(look)

    def _by_places(self, task: str, hand: CommandedPose, known: KnownScene | None) -> list[Source]:
        """The sources that lead by demonstrations and by waypoints."""
        config = self.config
        if not config.steers or not (config.reference or config.value_map):
            return []
        block = block_place(task, known)
        sources: list[Source] = []
        if config.reference:
            assert self.library is not None
            demonstrations = self.library.of(task)
            sources.append(Following.nearest(demonstrations, hand.pose, block, config))
        if config.value_map:
            joints = None if known is None else Joints.of(known.scene_obs)
            places = waypoints(task, joints, block)
            sources.append(WaypointMap(places, config.value_map, config.avoidance))
        return sources

    def _pointer(
        self, task: str, known: Scene | None, layout: Layout | None, look: Look | None
    ) -> Pointer:
        """What points at the task, or at a place of the user's."""
        if look is None or layout is None:
            raise ValueError("steering.pointing needs the scene's layout and a look at it")
        if self.config.point is not None:
            return Pointer.at_place(self.config.point, look, self.config.pointing)
        return Pointer.at_task(task, layout, look, self.config, known)

    def predict(
        self, policy: DP3, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> NDArray[np.float32]:
        """The actions (8, 7) to execute, for an observation of batch 1.

        The first sample's noise comes from ``generator``, as in the unsteered policy. Without
        strength and further samples the prediction is the same to the bit.
        """
        rollout, config = self._begun, self.config
        if not config.steers:
            actions = policy.predict_action(obs, generator=generator)["action"][0].cpu().numpy()
        else:
            actions = self._steered(policy, obs, generator)
        rollout.hand.advance(actions)
        # The simulator is not asked for the pose: it would answer where the arm is, not where the
        # controller was sent.
        rollout.predictions += 1
        return actions

    def _steered(
        self, policy: DP3, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> NDArray[np.float32]:
        rollout, config = self._begun, self.config
        # The horizon begins with the observed past. Only the actions from the present on count.
        first = policy.config.n_obs_steps - 1
        pose = torch.from_numpy(rollout.hand.pose).to(policy.device, torch.float32)
        draws, ranks = self._objectives(policy.config.horizon - first, obs)
        # Our own noise leaves the policy's generator as the unsteered policy leaves it.
        own = torch.Generator().manual_seed(self._step_seed)
        # Where nothing ranks, further samples would cost time for nothing.
        samples = 1 if ranks is None else config.samples
        predicted = policy.predict_action(
            obs,
            noise=self._noise(policy, generator, own, samples),
            guidance=self._guidance(draws, pose, first, own),
            samples_per_observation=samples,
        )
        paths = commanded_path(pose, predicted["action_pred"][:, first:])
        # The best sample is executed. With one sample this ranks nothing and fills the trace.
        energies = paths.new_zeros(len(paths)) if ranks is None else ranks(paths)
        chosen = int(energies.argmin())
        self.trace = Trace(paths.cpu().numpy(), energies.cpu().numpy(), chosen)
        self.first_trace = self.first_trace or self.trace
        return predicted["action"][chosen].cpu().numpy()

    def _noise(
        self, policy: DP3, generator: torch.Generator, own: torch.Generator, samples: int
    ) -> Tensor:
        """(N, horizon, 7): the policy's own draw, and N - 1 further ones of our own."""
        shape = (policy.config.horizon, policy.config.action_dim)
        first = torch.randn((1, *shape), generator=generator, device=generator.device)
        further = torch.randn((samples - 1, *shape), generator=own)
        return torch.cat([first.to(policy.device), further.to(policy.device)])

    @property
    def _step_seed(self) -> int:
        # 0 times anything would be the seed of the policy's own noise.
        return (self._begun.seed or _SEED_OF_ZERO) * 100_003 + self._begun.predictions

    def _guidance(
        self, objective: Objective | None, pose: Tensor, first: int, own: torch.Generator
    ) -> Guidance | None:
        config = self.config
        if config.strength == 0 or objective is None:
            return None
        gradient = GradientGuidance(
            objective, pose, first, config.strength_by_step, self._begun.calls
        )
        if config.repetitions == 1:
            return gradient
        return StochasticGuidance(gradient, config.repetitions, own)

    def _objectives(
        self, steps: int, obs: Mapping[str, Tensor]
    ) -> tuple[Objective | None, Objective | None]:
        """What the gradient descends, and what the samples are ranked by."""
        moment = Moment(self._begun.hand, obs, steps)
        wanted = [source.objectives(moment) for source in self._begun.sources]
        draws = [weighted for one in wanted for weighted in one.draw]
        ranks = [weighted for one in wanted for weighted in one.rank]
        return _sum(draws), _sum(ranks)


def require_steerable(
    config: SteeringConfig, task: str, library: DemonstrationLibrary | None, scene: str
) -> None:
    """Raise `UserError` if the configuration steers but cannot lead to the task in this scene."""
    if not config.steers:
        return
    if config.reference:
        assert library is not None
        library.of(task)
    if config.value_map:
        require_places(task, scene)
    if config.points:
        checked_task(task)
    if (config.reference or config.value_map) and not config.privileged:
        block_place(task, None)


def _sum(weighted: Sequence[tuple[Objective, float]]) -> Objective | None:
    """The weighted sum; None of none."""
    if not weighted:
        return None
    objectives, weights = zip(*weighted, strict=True)
    return Sum(objectives, weights)
