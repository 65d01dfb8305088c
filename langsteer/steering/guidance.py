"""Guidances of the denoising: each changes a step's clean estimate x0_hat of the trajectory.

Example::

    guidance = GradientGuidance(objective, pose, first_action=1, strength=Strength(1.0))
    policy.predict_action(obs, guidance=guidance)

The seam is `langsteer.policies.dp3.ddim.Guidance`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.policies.dp3.ddim import DenoisingStep
from langsteer.steering.config import Strength
from langsteer.steering.objectives import Objective
from langsteer.steering.path import (
    GRIPPER,
    METRES_PER_GRIPPER,
    METRES_PER_RADIAN,
    commanded_path,
    constant,
    path_curvature,
)

_PER_UNIT = (
    *[METRES_PER_UNIT] * 3,
    *[RADIANS_PER_UNIT * METRES_PER_RADIAN] * 3,
    METRES_PER_GRIPPER,
)
"""Metres commanded by one unit of each action."""


@dataclass
class Calls:
    """Costs of a guidance: gradients of the objective, and evaluations of the denoiser."""

    gradients: int = 0
    denoiser: int = 0


class GradientGuidance:
    """Descends an objective of the commanded path.

        x0_hat <- x0_hat - s D grad_x0 E(p(x0_hat)),    D_d = 1 / lambda_max(J_d^T J_d)

    Here p is the commanded path of the trajectory's actions from the present pose on
    (`path.commanded_path`). J_d is its Jacobian in metres for one dimension d of the action. On a
    quadratic energy of unit curvature, s = 1 is the largest step without overshoot in any mode. One
    such step corrects a slow drift of the path fully and jitter hardly at all. The gradient goes
    through the objective alone, not through the network.

    Sources: universal guidance (Bansal et al. 2023, arXiv 2302.07121, "backward guidance" without
    its inversion) and MPGD (He et al. 2023, arXiv 2311.16424) guide x0_hat by gradients. The step
    size is that of gradient descent on a quadratic.

    Make one for each prediction.

    Args:
        objective: see `objectives`.
        pose: (6,) commanded pose at the present, metres and radians.
        first_action: index in the horizon of the first action still to come.
        strength: when and how strongly.
        calls: counts gradients.
    """

    def __init__(
        self,
        objective: Objective,
        pose: Tensor,
        first_action: int,
        strength: Strength,
        calls: Calls | None = None,
    ) -> None:
        self.objective, self.pose, self.first_action = objective, pose, first_action
        self.strength = strength
        self.calls = calls or Calls()
        self._step_sizes: Tensor | None = None

    def __call__(self, x0_hat: Tensor, step: DenoisingStep) -> Tensor:
        """See `langsteer.policies.dp3.ddim.Guidance`."""
        scale = self.strength.at(step.plan.index, step.plan.total)
        return x0_hat if scale == 0 else self.descended(x0_hat, step, scale)

    def descended(self, x0_hat: Tensor, step: DenoisingStep, scale: float) -> Tensor:
        """x0_hat (S, T, A) after one gradient step of size ``scale``."""
        self.calls.gradients += 1
        # The network ran without gradients. They are on only for the objective: a chain of sums
        # and distances, cheap beside a pass of the network.
        with torch.enable_grad():
            variable = x0_hat.detach().requires_grad_()
            # The past actions of the horizon are done: they get no gradient.
            actions = step.unnormalize(variable)[:, self.first_action :]
            energy = self.objective(commanded_path(self.pose.to(x0_hat), actions)).sum()
            (gradient,) = torch.autograd.grad(energy, variable)
        # The step sizes depend on the normaliser and the horizon, not on the estimate.
        if self._step_sizes is None:
            self._step_sizes = 1 / self._curvature(x0_hat, step)
        return x0_hat - scale * gradient * self._step_sizes

    def _curvature(self, x0_hat: Tensor, step: DenoisingStep) -> Tensor:
        """lambda_max (A,) of each dimension's J^T J; the gripper's commands do not add up."""
        # Unnormalising is affine: the ends of the range give metres for each normalised unit.
        ends = constant((-1.0, 1.0), x0_hat.dtype, x0_hat.device)[:, None]
        ends = ends.expand(2, x0_hat.shape[-1])
        units_per_normalised = (step.unnormalize(ends)[1] - step.unnormalize(ends)[0]) / 2
        metres = units_per_normalised * constant(_PER_UNIT, x0_hat.dtype, x0_hat.device)
        # The first action moves the whole path, the last one its end alone: J is a running sum.
        modes = torch.full_like(metres, path_curvature(x0_hat.shape[1] - self.first_action))
        modes[GRIPPER] = 1.0
        return metres.square() * modes


class StochasticGuidance:
    """Repeats each guided step: descend, renoise to the step's own level, denoise again.

        x0' = x0_hat - s D grad E
        x_t' = sqrt(a) x0' + sqrt(1 - a) eps
        x0_hat = denoise(x_t')

    The repetition runs R - 1 times, then comes a last descent. It samples, Langevin-like, from the
    product of policy and objective: the network mends what guidance broke before the noise level
    falls. Sources: "stochastic sampling", Wang et al. 2024 (arXiv 2411.16627); "self-recurrence",
    Bansal et al. 2023.

    Args:
        gradient: the guidance to repeat.
        repetitions: R, 1 or more; 1 is plain gradient guidance.
        generator: of the noise, on the CPU.
    """

    def __init__(
        self, gradient: GradientGuidance, repetitions: int, generator: torch.Generator
    ) -> None:
        self.gradient, self.repetitions, self._generator = gradient, repetitions, generator

    def __call__(self, x0_hat: Tensor, step: DenoisingStep) -> Tensor:
        """See `langsteer.policies.dp3.ddim.Guidance`."""
        scale = self.gradient.strength.at(step.plan.index, step.plan.total)
        if scale == 0:
            return x0_hat
        level = step.plan.alpha_cumprod
        for _ in range(self.repetitions - 1):
            # Pull towards the objective,
            guided = self.gradient.descended(x0_hat, step, scale)
            # go back up to this step's noise level,
            noise = torch.randn(x0_hat.shape, generator=self._generator).to(x0_hat)
            renoised = level**0.5 * guided + (1 - level) ** 0.5 * noise
            # and let the network turn it into a plausible trajectory again.
            x0_hat = step.denoise(renoised).clamp(-1, 1)
            self.gradient.calls.denoiser += 1
        # The last word is the objective's, as without repetitions.
        return self.gradient.descended(x0_hat, step, scale)
