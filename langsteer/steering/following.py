"""Follow the demonstrations of a task that begin nearest, as a reference for the path.

Example::

    following = Following.nearest(library.of("open_drawer"), pose, block=None, config=config)
    objectives = following.objectives(moment)
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.steering.blocks import YAW, yaw_turn
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import Demonstration
from langsteer.steering.objectives import Reference
from langsteer.steering.path import EULER, CommandedPose
from langsteer.steering.source import Moment, Objectives

LEAST_PROGRESS, MOST_PROGRESS = 5, 14
"""Frames a reference goes on between two predictions of 8 actions. The nearest point alone can
stall: a demonstration may dwell there."""
FIRST_PHASES = 24
"""A rollout may join a demonstration within this many frames of its beginning."""
METRES_PER_YAW = 0.2
"""A block turned by a radian more or less makes a demonstration this much farther."""


@dataclass
class Followed:
    """A demonstration and how far along it the rollout is."""

    demonstration: Demonstration
    phase: int


class Following:
    """The demonstrations of a rollout, the nearest first.

    Attributes:
        followed: each at its frame of the last prediction.
    """

    def __init__(self, followed: list[Followed], weight: float, temperature: float) -> None:
        self.followed = followed
        self._weight, self._temperature = weight, temperature
        self._has_begun = False

    @classmethod
    def nearest(
        cls,
        demonstrations: list[Demonstration],
        pose: NDArray[np.float64],
        block: NDArray[np.float64] | None,
        config: SteeringConfig,
    ) -> "Following":
        """The demonstrations that begin nearest, each joined at its nearest frame.

        Ways to a block are shifted to the block's place. A similar yaw of the block counts as near.

        Args:
            demonstrations: of the task.
            pose: (6,) commanded pose, metres and radians.
            block: (4,) position and yaw of the block that the task is about, or None.
            config: how many of them, and their weight.
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
        followed = [one for _, one in joined[: config.candidates]]
        return cls(followed, config.reference, config.temperature)

    def objectives(self, moment: Moment) -> Objectives:
        """Nearness to what the demonstrations do next."""
        reference = Reference(self._targets(moment.hand, moment.steps), self._temperature)
        weighted = ((reference, self._weight),)
        return Objectives(draw=weighted, rank=weighted)

    def _targets(self, hand: CommandedPose, steps: int) -> Tensor:
        """(M, steps, 7) what the demonstrations do next, time-aligned."""
        targets = []
        for followed in self.followed:
            one, phase = followed.demonstration, followed.phase
            if self._has_begun:
                # The rollout may be slower or faster than the demonstration: go on at the nearest
                # frame, within bounds that forbid dwelling and jumping.
                low = min(phase + LEAST_PROGRESS, len(one))
                high = min(phase + MOST_PROGRESS, len(one)) + 1
                phase = low + int(one.distances(hand.pose, low, high).argmin())
            followed.phase = phase
            ahead = one.ahead(phase, steps)
            # Euler angles are summed without wrapping, so theirs must start in our turn.
            ahead[:, EULER] = hand.unwrapped(ahead[:, EULER], one.poses[phase, EULER])
            targets.append(ahead)
        self._has_begun = True
        return torch.from_numpy(np.stack(targets)).float()
