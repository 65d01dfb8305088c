"""The diffusion process of trajectories, its sampler, and the seam for steering it.

Example::

    diffusion = Diffusion(DP3Config())
    noisy = diffusion.add_noise(clean, noise, timesteps)
    for plan in diffusion.steps():      # DDIM, deterministic given the initial noise
        estimate = diffusion.clean_estimate(network_output, x, plan.timestep)
        x = ddim_previous(x, estimate, estimate.clamp(-1, 1), plan)

Noise level a = alphas_cumprod[t], x_t = sqrt(a) x0 + sqrt(1 - a) noise, with the cosine schedule of
Nichol & Dhariwal 2021 ("squaredcos_cap_v2"); the sampler is DDIM (Song et al. 2021) with eta 0,
'leading' timesteps, and x0 clipped to [-1, 1].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from langsteer.policies.dp3.config import DP3Config

MAX_BETA = 0.999


@dataclass(frozen=True)
class StepPlan:
    """One step of the sampler: its index of ``total``, its timestep and its noise levels."""

    index: int
    total: int
    timestep: int
    alpha_cumprod: float
    alpha_cumprod_previous: float  # of the step's result; 1 after the last


@dataclass(frozen=True)
class DenoisingStep:
    """A denoising step, as a guidance sees it.

    Attributes:
        plan: index, total, timestep and noise levels.
        x_t: (B, T, A) the step's noisy trajectories, normalised.
        obs: the observation in raw units as given to the policy, (B / samples, ...) each.
        samples_per_observation: trajectories of one observation follow one another.
        unnormalize: normalised actions (B, T, A) to action units, differentiable.
        normalize: the inverse.
        denoise: (B, T, A) noisy trajectories at this timestep to unclipped x0_hat (B, T, A), under
            the caller's gradient mode. Sampling itself tracks no gradients, so wrap a use of them
            in ``torch.enable_grad()``.
    """

    plan: StepPlan
    x_t: Tensor
    obs: Mapping[str, Tensor]
    samples_per_observation: int
    unnormalize: Callable[[Tensor], Tensor]
    normalize: Callable[[Tensor], Tensor]
    denoise: Callable[[Tensor], Tensor]


class Guidance(Protocol):
    """May change each step's estimate of the clean trajectory."""

    def __call__(self, x0_hat: Tensor, step: DenoisingStep) -> Tensor:
        """Clipped, normalised x0_hat (B, T, A) to the sampler's next x0_hat.

        The step's noise estimate stays the network's. So a shift d of x0_hat moves the next x by
        sqrt(alpha_cumprod_previous) d. The result is not clipped again.
        """
        ...


class Diffusion(nn.Module):
    """Noise levels, and the meaning of the network's output F.

    x0_hat = skip x_t + out F(in x_t), and F is trained towards (x0 - skip x_t) / out, with

    - ``sample``: skip 0, out 1, in 1: F is x0_hat itself;
    - ``v`` (Salimans & Ho 2022): skip sqrt(a), out -sqrt(1 - a), in 1;
    - ``preconditioned`` (Karras et al. 2022, written for x_t instead of x0 + sigma noise):
      with s = ``sigma_data`` and w = 1 - a + a s^2, skip sqrt(a) s^2 / w, out s sqrt((1 - a) / w),
      in 1 / sqrt(w). F's inputs and targets have unit variance, and at low noise x0_hat is close to
      x_t whatever the network says.
    """

    alphas_cumprod: Tensor
    coefficients: Tensor
    sampled_timesteps: Tensor

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        self.num_inference_steps = config.num_inference_steps
        alphas_cumprod = cosine_alphas_cumprod(config.num_train_timesteps)
        self._levels: list[float] = alphas_cumprod.tolist()
        clean, noise = alphas_cumprod.double().sqrt(), (1 - alphas_cumprod.double()).sqrt()
        skip, out, scale_in = _parametrisation(config, clean, noise)
        table = [clean, noise, skip, out, scale_in, (1 - skip * clean) / out, -skip * noise / out]
        # Not persistent: they follow from the config in the checkpoint.
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)
        self.register_buffer("coefficients", torch.stack(table).float(), persistent=False)
        self._of_timestep: list[list[float]] = torch.stack(table, dim=1).float().tolist()
        timesteps = torch.tensor([step.timestep for step in self.steps()], device="cpu")
        self.register_buffer("sampled_timesteps", timesteps, persistent=False)

    @property
    def num_train_timesteps(self) -> int:
        """Length of the process."""
        return len(self._levels)

    def _at(self, timesteps: Tensor | int) -> Sequence[Tensor | float]:
        """A coefficient each for all of a batch, or (B, 1, 1) for timesteps (B,)."""
        if isinstance(timesteps, int):
            return self._of_timestep[timesteps]
        return self.coefficients[:, timesteps][..., None, None].unbind(0)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of clean trajectories (B, T, A), noise (B, T, A), timesteps (B,)."""
        sqrt_clean, sqrt_noise, *_ = self._at(timesteps)
        return sqrt_clean * clean + sqrt_noise * noise

    def network_input(self, x_t: Tensor, timesteps: Tensor | int) -> Tensor:
        """in x_t."""
        return self._at(timesteps)[4] * x_t

    def network_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(x0 - skip x_t) / out, the target of F."""
        of_clean, of_noise = self._at(timesteps)[5:]
        return of_clean * clean + of_noise * noise

    def clean_estimate(self, output: Tensor, x_t: Tensor, timesteps: Tensor | int) -> Tensor:
        """x0_hat of the network's output, not clipped."""
        _, _, skip, out, *_ = self._at(timesteps)
        return skip * x_t + out * output

    def steps(self) -> list[StepPlan]:
        """The sampler's steps: timesteps evenly apart, down to 0 ('leading' spacing)."""
        total = self.num_inference_steps
        stride = self.num_train_timesteps // total
        timesteps = [stride * index for index in reversed(range(total))]
        return [
            StepPlan(
                index,
                total,
                timestep,
                self._levels[timestep],
                # The reference's sampler goes by the stride: t - stride < 0 is the clean end.
                self._levels[timestep - stride] if timestep >= stride else 1.0,
            )
            for index, timestep in enumerate(timesteps)
        ]


def _parametrisation(
    config: DP3Config, clean: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(skip, out, in) per timestep; ``clean`` and ``noise`` are sqrt(a) and sqrt(1 - a)."""
    one = torch.ones_like(clean)
    if config.prediction == "sample":
        return 0 * one, one, one
    if config.prediction == "v":
        return clean, -noise, one
    variance = noise**2 + (clean * config.sigma_data) ** 2
    skip = clean * config.sigma_data**2 / variance
    return skip, noise * config.sigma_data / variance.sqrt(), 1 / variance.sqrt()


def cosine_alphas_cumprod(count: int) -> Tensor:
    """Cumulative product of 1 - beta, (count,) float32 (Nichol & Dhariwal 2021, eq. 17)."""

    def level(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - level((t + 1) / count) / level(t / count), MAX_BETA) for t in range(count)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32, device="cpu"), dim=0)


def ddim_previous(x_t: Tensor, estimate: Tensor, x0_hat: Tensor, plan: StepPlan) -> Tensor:
    """The next, less noisy x (DDIM with eta 0).

    Args:
        x_t: (B, T, A).
        estimate: the network's unclipped x0_hat. The noise follows from it, as in the reference.
        x0_hat: the estimate clipped, and perhaps guided.
        plan: the step.
    """
    alpha, alpha_previous = plan.alpha_cumprod, plan.alpha_cumprod_previous
    # The noise comes from the network's own estimate: a guidance moves the trajectory, and the
    # noise level stays that of the step.
    noise = (x_t - math.sqrt(alpha) * estimate) / math.sqrt(1 - alpha)
    return math.sqrt(alpha_previous) * x0_hat + math.sqrt(1 - alpha_previous) * noise
