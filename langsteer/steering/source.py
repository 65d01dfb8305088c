"""What leads a rollout: a source of objectives for each of its predictions.

Demonstrations (`langsteer.steering.following`), waypoints (`langsteer.steering.waypoint_map`) and a
pointed place (`langsteer.steering.pointer`) are sources. A new kind of steering is a new one.

Example::

    moment = Moment(hand, obs, steps=15)
    objectives = source.objectives(moment)
    objectives.draw, objectives.rank
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from langsteer.steering.objectives import Objective
from langsteer.steering.path import CommandedPose

Weighted = tuple[tuple[Objective, float], ...]


@dataclass(frozen=True)
class Objectives:
    """The objectives of a prediction, with their weights.

    Attributes:
        draw: their gradient draws the path.
        rank: they choose among samples.
    """

    draw: Weighted = ()
    rank: Weighted = ()


@dataclass(frozen=True)
class Moment:
    """What is known before a prediction.

    Attributes:
        hand: where the controller was sent.
        obs: of the policy, batch 1.
        steps: number of actions that the prediction looks ahead.
    """

    hand: CommandedPose
    obs: Mapping[str, Tensor]
    steps: int


class Source(Protocol):
    """Leads a rollout."""

    def objectives(self, moment: Moment) -> Objectives:
        """The objectives of the next prediction; called once for each."""
        ...
