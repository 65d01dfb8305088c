"""Condition the policy on a sentence, with classifier-free guidance (Ho & Salimans 2022).

A policy without language has none of this. With it, the observation holds ``language`` (B, E), a
sentence's embedding. Training withholds some samples' sentences, so one network learns to denoise
with and without a sentence. Sampling may then overstate the difference::

    output = without + scale * (with - without)
"""

import math

import torch
from torch import Tensor, nn

from langsteer.errors import UserError
from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.products import Linear
from langsteer.sentences import SentenceEncoder

PROBE = "take the red block off the table and put it into the drawer"
"""A sentence with different embeddings by different encoders."""
_LEAST_LIKENESS = 0.999


class LanguageCondition(nn.Module):
    """Append a projected sentence to the condition; a withheld one is the zero embedding.

    Attributes:
        probe: (E,) the training encoder's embedding of `PROBE`; not finite until `remember`.
    """

    probe: Tensor

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        self.dropout = config.language_dropout
        self.scale = config.language_guidance
        self.projection = Linear(config.language_dim, config.encoder_output_dim)
        self.output_dim = config.encoder_output_dim
        # Embeddings have length 1, so their values are small; the other features' are about 1.
        self.input_scale = math.sqrt(config.language_dim)
        self.register_buffer("probe", torch.full((config.language_dim,), torch.nan))

    @property
    def guides(self) -> bool:
        """Whether sampling asks the network twice, with and without the sentence."""
        return self.scale != 1

    def append(self, condition: Tensor, sentences: Tensor) -> Tensor:
        """Condition (B, D) and sentences (B, E) to (B, D + output_dim)."""
        return torch.cat([condition, self.projection(sentences * self.input_scale)], dim=-1)

    def withhold(
        self,
        sentences: Tensor,
        withheld: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Zero the sentences (B, E) marked in ``withheld`` (B,) bool; a random share if None."""
        if withheld is None:
            drawn_on = sentences.device if generator is None else generator.device
            draws = torch.rand(len(sentences), generator=generator, device=drawn_on)
            withheld = draws < self.dropout
        return sentences.masked_fill(withheld.to(sentences.device)[:, None], 0.0)

    def remember(self, encoder: SentenceEncoder) -> None:
        """Keep a mark of the training's encoder with the weights, for `check`."""
        self.probe.copy_(torch.from_numpy(encoder.encode([PROBE])[0]))

    def check(self, encoder: SentenceEncoder) -> None:
        """Raise `UserError` if an encoder embeds sentences unlike the training's."""
        if not self.probe.isfinite().all():
            raise UserError("this policy does not know what embedded the sentences of its training")
        found = torch.from_numpy(encoder.encode([PROBE])[0]).to(self.probe)
        likeness = float(torch.dot(found, self.probe))
        if not likeness >= _LEAST_LIKENESS:
            raise UserError(
                f"{type(encoder).__name__} embeds sentences unlike the encoder that this policy "
                f"was trained with (cosine {likeness:.3f} between their embeddings of one "
                "sentence); install the version of the training's, or train again"
            )

    def guide(self, outputs: Tensor) -> Tensor:
        """Outputs (2B, T, A) with and, behind, without the sentence to guided ones (B, T, A)."""
        informed, uninformed = outputs.chunk(2)
        return uninformed + self.scale * (informed - uninformed)
