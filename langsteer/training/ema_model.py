"""An exponential moving average of the weights, with DP3's warm-up of the decay.

Example::

    ema = EMAModel(policy)
    optimizer.step()
    ema.update(policy)
    ema.model.predict_action(obs)
"""

import copy
from typing import Any

import torch
from torch import nn


class EMAModel:
    """A copy of a model; its weights trail the original's.

    The decay at update k is 1 - (1 + k - 1)^-power, 0 for the first two and at most ``max_decay``.
    It forgets early weights quickly (diffusion_policy's ``EMAModel`` with inv_gamma 1).

    Attributes:
        model: the averaged copy, in evaluation mode and without gradients.
        updates: the number of updates so far.
    """

    def __init__(self, model: nn.Module, power: float = 0.75, max_decay: float = 0.9999) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.power = power
        self.max_decay = max_decay
        self.updates = 0

    @property
    def decay(self) -> float:
        """Share of the old average in the next update."""
        past_warmup = self.updates - 1
        if past_warmup <= 0:
            return 0.0
        return min(1.0 - (1.0 + past_warmup) ** -self.power, self.max_decay)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        averages: list[torch.Tensor] = list(self.model.parameters())
        weights: list[torch.Tensor] = list(model.parameters())
        # One call for all weights: a loop would launch a kernel for each.
        torch._foreach_lerp_(averages, weights, 1.0 - self.decay)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The copy's whole state dict; `updates` is kept apart, by the trainer."""
        return self.model.state_dict()
