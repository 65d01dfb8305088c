"""Seek a task's waypoints one after another, and keep away from other things.

Example::

    places = WaypointMap(waypoints("open_drawer"), weight=1.0, avoidance=1.0)
    objectives = places.objectives(moment)
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.calvin.angles import wrapped
from langsteer.steering.objectives import ValueMap
from langsteer.steering.path import EULER, METRIC, CommandedPose
from langsteer.steering.source import Moment, Objectives

ARRIVED = 0.025
"""The next waypoint counts within this distance of the present one, in metres."""
_OWN_RADIUS, _TARGET_RADIUS = 0.16, 0.12
"""Metres. Points this near the hand or the waypoint do not repel."""
_MOST_POINTS = 512


class WaypointMap:
    """The waypoints of a rollout.

    Attributes:
        waypoints: those still to come, (7,) poses; NaN leaves a coordinate free.
    """

    def __init__(
        self, waypoints: list[NDArray[np.float64]], weight: float, avoidance: float
    ) -> None:
        self.waypoints = waypoints
        self._weight, self._avoidance = weight, avoidance

    def objectives(self, moment: Moment) -> Objectives:
        """The map around the next waypoint; passed waypoints are dropped.

        One prediction drops one at most: closing the fingers in place takes a prediction's time.
        """
        hand = moment.hand
        # A waypoint leads to the next. The last one stays to the end.
        if len(self.waypoints) > 1 and _has_arrived(hand.pose, self.waypoints[0]):
            self.waypoints.pop(0)
        place = self.waypoints[0].copy()
        place[EULER] = hand.unwrapped(place[None, EULER], place[EULER])[0]
        waypoint = torch.from_numpy(place).float()
        avoid = _others(moment.obs["point_cloud"][0, -1, :, :3], hand, place)
        weighted = ((ValueMap(waypoint, avoid, avoidance=self._avoidance), self._weight),)
        return Objectives(draw=weighted, rank=weighted)


def _others(points: Tensor, hand: CommandedPose, place: NDArray[np.float64]) -> Tensor:
    """(J, 3) points of a cloud (N, 3) off the hand and the thing to touch: neither may repel."""
    cloud = points[:: max(1, len(points) // _MOST_POINTS)]
    own = torch.from_numpy(hand.pose[:3]).to(cloud)
    target = torch.from_numpy(place[:3]).to(cloud)
    far = torch.linalg.norm(cloud - own, dim=1) > _OWN_RADIUS
    far &= torch.linalg.norm(cloud - target, dim=1) > _TARGET_RADIUS
    return cloud[far]


def _has_arrived(pose: NDArray[np.float64], place: NDArray[np.float64]) -> bool:
    # Angles are compared modulo a whole turn; NaN coordinates of a waypoint do not matter.
    difference = place[:6] - pose
    difference[EULER] = wrapped(difference[EULER])
    return float(np.linalg.norm(np.nan_to_num(difference * METRIC[:6]))) < ARRIVED
