"""Energies of a commanded path in square metres; lower is better.

An objective maps poses (S, K, 7) (`langsteer.steering.path`) to energies (S,), differentiably. The
same objective guides by its gradient and ranks samples (`langsteer.steering.guidance`).

Example::

    objective = Sum([Reference(targets), ValueMap(goal, avoid=points)], weights=[1.0, 0.5])
    energies = objective(poses)
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from langsteer.steering.path import (
    GRIPPER,
    METRES_PER_GRIPPER,
    METRES_PER_RADIAN,
    METRIC,
    POSITION,
    YAW,
    constant,
)


class Objective(Protocol):
    """Energies of paths."""

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,)."""
        ...


class Reference:
    """Nearness to one of M demonstrated paths, softly.

        E(p) = -tau log( 1/M sum_i exp(-d_i(p) / tau) ),    d_i = 1/2 sum_k |W (p_k - r_ik)|^2

    Its gradient is the mean of the gradients towards the paths, weighted by softmax(-d / tau). So
    each sample moves to the demonstrations near it, not to their average. The energy is that of a
    mixture of Gaussians around the retrieved paths. With M = 1 it is the squared distance to a
    sketched path: Wang et al. 2024, Inference-Time Policy Steering through Human Interactions
    (arXiv 2411.16627).
    """

    def __init__(self, targets: Tensor, temperature: float = 0.01) -> None:
        """Draw towards ``targets`` (M, K, 7); ``temperature`` tau in square metres."""
        self.targets = targets
        self._log_count: Tensor | None = None
        self.temperature = temperature

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,) square metres."""
        self.targets = self.targets.to(poses)  # uploaded at the first call alone
        difference = (poses[:, None] - self.targets) * constant(METRIC, poses.dtype, poses.device)
        distances = difference.square().sum(dim=(-1, -2)) / 2
        if self._log_count is None:
            count = torch.tensor(float(len(self.targets)), dtype=poses.dtype)
            self._log_count = count.log().to(poses)
        soft = torch.logsumexp(-distances / self.temperature, dim=1) - self._log_count
        return -self.temperature * soft


class ValueMap:
    """Towards one place in the scene and away from others, like VoxPoser's value maps.

        E(p) = sum_k 1/2 |p_k - w|^2_huber + lambda sum_k 1/2 max(0, r - min_j |p_k - o_j|)^2

    ``w`` is the next waypoint with its gripper command, ``o_j`` are points not to touch. The
    (pseudo-)Huber norm bounds the pull of a far waypoint. Affordance and avoidance maps: Huang et
    al. 2023, VoxPoser (arXiv 2307.05973).
    """

    def __init__(
        self,
        waypoint: Tensor,
        avoid: Tensor | None = None,
        radius: float = 0.04,
        avoidance: float = 1.0,
        reach: float = 0.1,
    ) -> None:
        """Draw towards a waypoint.

        Args:
            waypoint: (7,) pose; NaN leaves a coordinate free.
            avoid: (J, 3) points in metres, or None.
            radius: points repel within it, metres.
            avoidance: lambda.
            reach: the pull grows no more beyond it, metres.
        """
        self.waypoint, self.avoid = waypoint, avoid
        self.radius, self.avoidance, self.reach = radius, avoidance, reach

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,) square metres."""
        self.waypoint = waypoint = self.waypoint.to(poses)  # uploaded at the first call alone
        # A free coordinate is NaN: it must add neither energy nor a gradient.
        matters = ~waypoint.isnan()
        metric = constant(METRIC, poses.dtype, poses.device)
        difference = (poses - waypoint.nan_to_num()) * metric * matters
        squared = difference.square().sum(dim=-1)
        # Smooth at 0, quadratic near and linear far off (pseudo-Huber).
        pull = self.reach**2 * ((1 + squared / self.reach**2).sqrt() - 1)
        energy = pull.sum(dim=-1)
        if self.avoid is None or not len(self.avoid):
            return energy
        positions, avoid = poses[..., POSITION], self.avoid.to(poses)
        # The gradient goes to the nearest point alone; through all distances it takes longer.
        nearest = avoid[torch.cdist(positions.detach(), avoid).argmin(dim=-1)]
        gaps = torch.linalg.vector_norm(positions - nearest, dim=-1)
        push = (self.radius - gaps).clamp_min(0).square() / 2
        return energy + self.avoidance * push.sum(dim=-1)


class Point:
    """The path's end at one point: a position, without rotation, gripper or sequence.

        E(p) = h^2 (sqrt(1 + |p_K - g|^2 / h^2) - 1)

    The point goal of Wang et al. 2024 (ITPS, arXiv 2411.16627), on the end of the commanded path
    as DynaGuide (arXiv 2506.13922) draws to a future state. The pseudo-Huber norm of `ValueMap`
    keeps a far point from pulling harder than the path can follow.
    """

    def __init__(self, point: Tensor, reach: float = 0.3) -> None:
        """Draw to ``point`` (3,) in metres; from ``reach`` h metres on no harder."""
        self.point, self.reach = point, reach

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,) square metres."""
        self.point = self.point.to(poses)  # uploaded at the first call alone
        squared = (poses[:, -1, POSITION] - self.point).square().sum(dim=-1)
        return self.reach**2 * ((1 + squared / self.reach**2).sqrt() - 1)


class Touch:
    """The place where the hand meets a thing, at some moment of the path.

        E(p) = 1/2 min(r, min_k |p_k - c|)^2

    A path may go on after the contact, as a grasp does that lifts at once; the end of a path,
    `Point`, would ask it to stop there. Paths that miss the place by r or more are alike. So a
    small r is for ranking: if all differences counted, the best of some random steps would lead any
    network to the place, one after another. A gradient needs an r that reaches the hand.
    """

    def __init__(self, place: Tensor, reach: float = 0.03) -> None:
        """Favour the paths that pass ``place`` (3,) within ``reach`` r; metres."""
        self.place, self.reach = place, reach

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,) square metres."""
        self.place = self.place.to(poses)  # uploaded at the first call alone
        gaps = torch.linalg.vector_norm(poses[..., POSITION] - self.place, dim=-1).amin(dim=-1)
        return gaps.clamp_max(self.reach).square() / 2


class Intent:
    """What shall happen after contact: the hand moves along a direction or turns, fingers close.

        E(p) = 1/2 max(0, l - max(m, d.(p_K - p_1)))^2 + w_g^2 / 2 mean_k (g_k - c)^2
               + 1/2 max(0, l - w s (yaw_K - yaw_1))^2 + 1/2 |p_K - p_1|^2

    The second line is a turn's: it happens in place. w and w_g are those of `path.METRIC`; l = 0.1
    m, for more is no better. Ways shorter than m rank alike. Samples of the policy are ranked by it
    (best of N), as energies choose among samples in ITPS (arXiv 2411.16627).
    """

    def __init__(
        self,
        toward: tuple[float, float, float] | None = None,
        turn: int = 0,
        fingers: float | None = None,
        way: float = 0.1,
        least: float = -math.inf,
    ) -> None:
        """Rank paths.

        Args:
            toward: unit vector of the hand's way; None for any.
            turn: 1 counterclockwise seen from above, -1 clockwise, 0 for any.
            fingers: the gripper's command, -1 closes; None for any.
            way: l, metres.
            least: m, metres.
        """
        self.toward, self.turn, self.fingers = toward, turn, fingers
        self.way, self.least = way, least

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,) square metres."""
        went = poses[:, -1] - poses[:, 0]
        energy = torch.zeros_like(went[:, 0])
        if self.toward is not None:
            along = went[:, POSITION] @ constant(self.toward, poses.dtype, poses.device)
            energy = energy + (self.way - along.clamp_min(self.least)).clamp_min(0).square() / 2
        if self.turn:
            turned = METRES_PER_RADIAN * self.turn * went[:, YAW]
            energy = energy + (self.way - turned).clamp_min(0).square() / 2
            energy = energy + went[:, POSITION].square().sum(dim=-1) / 2
        if self.fingers is not None:
            apart = METRES_PER_GRIPPER * (poses[..., GRIPPER] - self.fingers)
            energy = energy + apart.square().mean(dim=-1) / 2
        return energy


class Sum:
    """A weighted sum of objectives."""

    def __init__(self, objectives: Sequence[Objective], weights: Sequence[float]) -> None:
        self.parts = list(zip(objectives, weights, strict=True))

    def __call__(self, poses: Tensor) -> Tensor:
        """(S, K, 7) to (S,)."""
        return torch.stack([weight * part(poses) for part, weight in self.parts]).sum(dim=0)
