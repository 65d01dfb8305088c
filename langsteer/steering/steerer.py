"""Steer a policy towards a task for one rollout: retrieval, guidance, ranking.

Example::

    steerer = Steerer(SteeringConfig(reference=1.0, strength=1.0, demonstrations="data/demos"))
    steerer.begin("open_drawer", env.commanded_pose)
    agent = Agent(policy, predict=steerer.predict)      # predicts (8, 7) actions, steered

The steerer sums up the actions it returned to know the commanded pose, so all of them must be
executed before the next prediction, as rollouts do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.policies.dp3 import DP3
from langsteer.policies.dp3.ddim import Guidance
from langsteer.steering.blocks import YAW, KnownScene, block_place, yaw_turn
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import (
    Demonstration,
    DemonstrationLibrary,
    open_library,
)
from langsteer.steering.guidance import Calls, GradientGuidance, StochasticGuidance
from langsteer.steering.objectives import Objective, Reference, Sum, ValueMap
from langsteer.steering.path import (
    EULER,
    METRES_PER_RADIAN,
    METRIC,
    CommandedPose,
    commanded_path,
)
from langsteer.steering.waypoints import Joints, require_places, waypoints

LEAST_PROGRESS, MOST_PROGRESS = 5, 14
"""By how many frames a reference goes on between two predictions of 8 actions: the nearest point
alone can stall where a demonstration dwells."""
FIRST_PHASES = 24
"""Frames from a demonstration's beginning among which the rollout may join it."""
METRES_PER_YAW = 0.2
"""A block turned by a radian more or less makes a demonstration this much farther."""
ARRIVED = 0.025
"""Metres from a waypoint at which the next one counts."""
_OWN_RADIUS, _TARGET_RADIUS = 0.16, 0.12
"""Metres around the hand and around the waypoint in which points do not repel."""
_MOST_POINTS = 512
_SEED_OF_ZERO = 0x57EE2
_TURN = 2 * np.pi * METRES_PER_RADIAN


@dataclass
class Followed:
    """A demonstration and how far along it the rollout is."""

    demonstration: Demonstration
    phase: int


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
    followed: list[Followed]
    places: list[NDArray[np.float64]]
    seed: int
    predictions: int = 0
    calls: Calls = field(default_factory=Calls)


class Steerer:
    """Predictions that lead to a task.

    Args:
        config: how to steer.
        library: demonstrations, opened once for many steerers; None opens those of the config.

    Attributes:
        trace: what the last prediction weighed, or None where nothing steers.
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
    ) -> None:
        """Head for a task from here.

        Args:
            task: one of CALVIN's.
            commanded: (6,) the pose that the next relative action is added to,
                `CalvinEnv.commanded_pose`; of an arm at rest it is where the tcp is.
            seed: of the further samples' noise and of repetitions.
            scene: read only with ``privileged``.

        Raises:
            UserError: no demonstration of the task, no places known for it, or it is about a
                block whose place may not be read.
        """
        hand = CommandedPose(commanded)
        followed, places = [], []
        if self.config.steers:
            known = scene if self.config.privileged else None
            block = block_place(task, known)
            if self.config.reference:
                assert self.library is not None
                followed = self._nearest(self.library.of(task), hand.pose, block)
            if self.config.value_map:
                places = waypoints(
                    task, None if known is None else Joints.of(known.scene_obs), block
                )
        self._rollout = _Rollout(hand, followed, places, seed)
        self.trace = self.first_trace = None

    def _nearest(
        self,
        demonstrations: list[Demonstration],
        pose: NDArray[np.float64],
        block: NDArray[np.float64] | None,
    ) -> list[Followed]:
        """The demonstrations that begin nearest, each joined where it passes nearest.

        Ways to a block are shifted to where it lies; one to a block that was turned alike counts
        as nearer.
        """
        joined = []
        for shown in demonstrations:
            one = shown.for_block_at(block)
            distances = one.distances(pose, 0, min(FIRST_PHASES, len(one)))
            gap = float(distances.min())
            if block is not None and shown.block is not None:
                gap += METRES_PER_YAW * abs(yaw_turn(block[YAW], shown.block[YAW]))
            joined.append((gap, Followed(one, int(distances.argmin()))))
        joined.sort(key=lambda pair: pair[0])
        return [followed for _, followed in joined[: self.config.candidates]]

    def predict(
        self, policy: DP3, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> NDArray[np.float32]:
        """The actions (8, 7) to execute, for an observation of batch 1.

        The first sample's noise is drawn from ``generator`` exactly as the unsteered policy draws
        it; without strength and further samples the prediction is the same to the bit.
        """
        rollout, config = self._begun, self.config
        if not config.steers:
            actions = policy.predict_action(obs, generator=generator)["action"][0].cpu().numpy()
        else:
            actions = self._steered(policy, obs, generator)
        rollout.hand.advance(actions)
        rollout.predictions += 1
        return actions

    def _steered(
        self, policy: DP3, obs: Mapping[str, Tensor], generator: torch.Generator
    ) -> NDArray[np.float32]:
        rollout, config = self._begun, self.config
        first = policy.config.n_obs_steps - 1
        pose = torch.from_numpy(rollout.hand.pose).to(policy.device, torch.float32)
        objective = self._objective(policy.config.horizon - first, obs)
        own = torch.Generator().manual_seed(self._step_seed)
        predicted = policy.predict_action(
            obs,
            noise=self._noise(policy, generator, own),
            guidance=self._guidance(objective, pose, first, own),
            samples_per_observation=config.samples,
        )
        paths = commanded_path(pose, predicted["action_pred"][:, first:])
        energies = objective(paths)
        chosen = int(energies.argmin())
        self.trace = Trace(paths.cpu().numpy(), energies.cpu().numpy(), chosen)
        self.first_trace = self.first_trace or self.trace
        return predicted["action"][chosen].cpu().numpy()

    def _noise(self, policy: DP3, generator: torch.Generator, own: torch.Generator) -> Tensor:
        """(N, horizon, 7): the policy's own draw, and N - 1 further ones of our own."""
        shape = (policy.config.horizon, policy.config.action_dim)
        first = torch.randn((1, *shape), generator=generator, device=generator.device)
        further = torch.randn((self.config.samples - 1, *shape), generator=own)
        return torch.cat([first.to(policy.device), further.to(policy.device)])

    @property
    def _step_seed(self) -> int:
        # 0 times anything would be the seed of the policy's own noise.
        return (self._begun.seed or _SEED_OF_ZERO) * 100_003 + self._begun.predictions

    def _guidance(
        self, objective: Objective, pose: Tensor, first: int, own: torch.Generator
    ) -> Guidance | None:
        config = self.config
        if config.strength == 0:
            return None
        gradient = GradientGuidance(
            objective, pose, first, config.strength_by_step, self._begun.calls
        )
        if config.repetitions == 1:
            return gradient
        return StochasticGuidance(gradient, config.repetitions, own)

    def _objective(self, steps: int, obs: Mapping[str, Tensor]) -> Objective:
        parts: list[Objective] = []
        weights = []
        if self._begun.followed:
            parts.append(Reference(self._targets(steps), self.config.temperature))
            weights.append(self.config.reference)
        if self._begun.places:
            parts.append(self._value_map(obs["point_cloud"][0, -1, :, :3]))
            weights.append(self.config.value_map)
        return Sum(parts, weights)

    def _targets(self, steps: int) -> Tensor:
        """(M, steps, 7) what the followed demonstrations do next, time-aligned."""
        rollout = self._begun
        targets = []
        for followed in rollout.followed:
            one, phase = followed.demonstration, followed.phase
            if rollout.predictions:
                low = min(phase + LEAST_PROGRESS, len(one))
                high = min(phase + MOST_PROGRESS, len(one)) + 1
                phase = low + int(one.distances(rollout.hand.pose, low, high).argmin())
            followed.phase = phase
            ahead = one.ahead(phase, steps)
            ahead[:, EULER] = _unwrapped(ahead[:, EULER], one.poses[phase, EULER], rollout.hand)
            targets.append(ahead)
        return torch.from_numpy(np.stack(targets)).float()

    def _value_map(self, points: Tensor) -> ValueMap:
        """The map around the waypoint that is next; passed ones are forgotten.

        One in a prediction: where only the gripper's command differs, the fingers need its time.
        """
        rollout = self._begun
        if len(rollout.places) > 1 and _has_arrived(rollout.hand.pose, rollout.places[0]):
            rollout.places.pop(0)
        place = rollout.places[0].copy()
        turns = _unwrapped(place[None, EULER], place[EULER], rollout.hand)[0]
        place[EULER] = turns
        cloud = points[:: max(1, len(points) // _MOST_POINTS)]
        hand = torch.from_numpy(rollout.hand.pose[:3]).to(cloud)
        target = torch.from_numpy(place[:3]).to(cloud)
        far = torch.linalg.norm(cloud - hand, dim=1) > _OWN_RADIUS
        far &= torch.linalg.norm(cloud - target, dim=1) > _TARGET_RADIUS
        waypoint = torch.from_numpy(place).float()
        return ValueMap(waypoint, cloud[far], avoidance=self.config.avoidance)


def require_steerable(
    config: SteeringConfig, task: str, library: DemonstrationLibrary | None, scene: str
) -> None:
    """Raise `UserError` where the configuration steers but cannot lead to the task in a scene."""
    if not config.steers:
        return
    if config.reference:
        assert library is not None
        library.of(task)
    if config.value_map:
        require_places(task, scene)
    if not config.privileged:
        block_place(task, None)


def _unwrapped(
    euler: NDArray[np.float64], at: NDArray[np.float64], hand: CommandedPose
) -> NDArray[np.float64]:
    """Angles (K, 3) moved by whole turns, so that ``at`` (3,) is nearest to the commanded ones."""
    turns = np.round((hand.pose[3:6] - at) / (2 * np.pi))
    return euler + 2 * np.pi * turns


def _has_arrived(pose: NDArray[np.float64], place: NDArray[np.float64]) -> bool:
    difference = (place[:6] - pose) * METRIC[:6]
    difference[3:] = (difference[3:] + _TURN / 2) % _TURN - _TURN / 2
    return float(np.linalg.norm(np.nan_to_num(difference))) < ARRIVED
