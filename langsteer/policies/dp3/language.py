"""Condition the policy on a sentence, with classifier-free guidance (Ho & Salimans 2022).

A policy without language has none of this; with it, the observation holds ``language`` (B, E), a
sentence's embedding. In training some samples' sentences are withheld, so that one network learns
the denoiser with and without a sentence; sampling may then overstate the difference::

    output = without + scale * (with - without)
"""

import torch
from torch import Tensor, nn

from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.products import Linear


class LanguageCondition(nn.Module):
    """Append a projected sentence to the condition; one that is withheld is the zero embedding."""

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        self.dropout = config.language_dropout
        self.scale = config.language_guidance
        self.projection = Linear(config.language_dim, config.encoder_output_dim)
        self.output_dim = config.encoder_output_dim

    @property
    def guides(self) -> bool:
        """Whether sampling asks the network twice, with and without the sentence."""
        return self.scale != 1

    def append(self, condition: Tensor, sentences: Tensor) -> Tensor:
        """Condition (B, D) and sentences (B, E) to (B, D + output_dim)."""
        return torch.cat([condition, self.projection(sentences)], dim=-1)

    def withhold(self, sentences: Tensor, generator: torch.Generator | None) -> Tensor:
        """Zero the sentences (B, E) of a random share of samples."""
        drawn_on = sentences.device if generator is None else generator.device
        draws = torch.rand(len(sentences), 1, generator=generator, device=drawn_on)
        return sentences * (draws >= self.dropout).to(sentences.device, sentences.dtype)

    def guide(self, outputs: Tensor) -> Tensor:
        """Outputs (2B, T, A) with and, behind, without the sentence to guided ones (B, T, A)."""
        informed, uninformed = outputs.chunk(2)
        return uninformed + self.scale * (informed - uninformed)
