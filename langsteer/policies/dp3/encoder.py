"""Encode observation frames: PointNet over the cloud, and a small network over the robot's state.

A policy may also look for things: see `PointAttention`.

Example::

    features = ObservationEncoder(DP3Config())(points, state)  # (F, P, 3), (F, 15) -> (F, 128)

Submodules have the reference's names, so its state dicts fit.

The maximum over the points passes its gradient to few of them: at most one per channel, an eighth
of a cloud of 2048. So training finds those points without tracking gradients, and runs the network
with gradients on them alone. Values and gradients equal those of the plain computation up to
rounding, in less than a quarter of its time (benchmarks/policy.py).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.normalizer import agent_pos_dim
from langsteer.policies.dp3.products import Linear

ARGMAX_BLOCK = 64

_HIDDEN, _KEY, _VALUE = 64, 32, 8
"""Widths of the attention's layers, keys and values."""
_NEAR, _FAR = 0.05, 0.25
"""Offsets are scaled by these metres: a block's size, and a good part of the table's."""


class PointEncoder(nn.Module):
    """A network per point, the maximum over the points, a projection: the order of points is free.

    Per point: linear, layer norm, ReLU for each of ``point_widths``; coloured points get one more
    linear layer of twice the last width, without norm or ReLU, as in the reference.
    """

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((config.point_dim, *config.point_widths)):
            # In place: the norm's backward needs its input, not its output.
            layers += [Linear(width_in, width_out), nn.LayerNorm(width_out), nn.ReLU(True)]
        pooled = config.point_widths[-1]
        if config.use_pc_color:
            layers.append(Linear(pooled, 2 * pooled))
            pooled *= 2
        self.mlp = nn.Sequential(*layers)
        self.final_projection = nn.Sequential(
            Linear(pooled, config.encoder_output_dim), nn.LayerNorm(config.encoder_output_dim)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Normalised points (F, P, 3 or 6) to features (F, D)."""
        pooled = self._pool_selected(points) if torch.is_grad_enabled() else self._pool(points)
        projected: Tensor = self.final_projection(pooled)
        return projected

    def _pool(self, points: Tensor) -> Tensor:
        """The maximum over the points, (F, P, D) to (F, C)."""
        frames = points.split(1) if goes_by_frames(points) else [points]
        return torch.cat([self.mlp(frame).amax(dim=1) for frame in frames])

    def _pool_selected(self, points: Tensor) -> Tensor:
        """`_pool` through the points at the maximum alone."""
        if not goes_by_frames(points):
            # One point per channel, repeated or not: no wait for the device.
            # Find the winners first, without gradients: the pass over all points is the long one.
            with torch.no_grad():
                winners = self.mlp(points).argmax(dim=1)
            selected = points.take_along_dim(winners[..., None], dim=1)
            return self.mlp(selected).diagonal(dim1=1, dim2=2)
        with torch.no_grad():
            winners = torch.stack([_argmax_over_rows(self.mlp(frame)) for frame in points])
        first_of_frame = torch.arange(len(points))[:, None] * points.shape[1]
        unique, place = torch.unique(winners + first_of_frame, return_inverse=True)
        return self.mlp(points.flatten(0, 1)[unique]).gather(0, place)


def goes_by_frames(points: Tensor) -> bool:
    """Whether clouds are encoded one at a time: a CPU then keeps the activations in its cache.

    Compiled, they are encoded together: the number of different winners is no fixed size.
    """
    return points.device.type == "cpu" and not torch.compiler.is_compiling()


def _argmax_over_rows(values: Tensor) -> Tensor:
    """Row of each column's maximum, (P, C) to (C,); in two stages, the first of them vectorised.

    PyTorch 2.13 takes 20 times longer for an arg-max over rows than for a maximum over rows.
    """
    rows, columns = values.shape
    if rows % ARGMAX_BLOCK:
        return values.argmax(dim=0)
    blocks = values.view(-1, ARGMAX_BLOCK, columns)
    block = blocks.amax(dim=1).argmax(dim=0)
    within = blocks[block, :, torch.arange(columns)].argmax(dim=1)
    return block * ARGMAX_BLOCK + within


class PointAttention(nn.Module):
    """Attention over the points: each head looks for a thing the task is about.

    A maximum over the points gives a place only to the precision of its channels. A head instead
    weighs the points and returns the weighted mean of the points themselves. The weight is the
    agreement of a query, from sentence and state, with the point's key. It is a soft selection like
    the spatial softmax over pixels of Levine et al. 2016 (arXiv 1504.00702), with the query of
    dot-product attention (Luong et al. 2015, arXiv 1508.04025).
    """

    def __init__(self, config: DP3Config, output_dim: int) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.points = nn.Sequential(
            Linear(config.point_dim + 3, _HIDDEN),
            nn.LayerNorm(_HIDDEN),
            nn.ReLU(True),
            Linear(_HIDDEN, _HIDDEN),
            nn.LayerNorm(_HIDDEN),
            nn.ReLU(True),
        )
        self.keys = Linear(_HIDDEN, _KEY)
        self.values = Linear(_HIDDEN, _VALUE)
        sentence = config.language_dim if config.language else 0
        self.queries = nn.Sequential(
            Linear(sentence + agent_pos_dim(config.agent_pos), 2 * _HIDDEN),
            nn.ReLU(),
            Linear(2 * _HIDDEN, self.heads * _KEY),
        )
        self.output = nn.Sequential(
            Linear(self.heads * (9 + _VALUE), 2 * _HIDDEN),
            nn.ReLU(),
            Linear(2 * _HIDDEN, output_dim),
        )

    def forward(
        self, points: Tensor, state: Tensor, tcp: Tensor, sentences: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Features (F, ``output_dim``) of frames, and where each head looks (F, heads, 3), metres.

        Args:
            points: (F, P, 3 or 6), metres, world frame, then colours.
            state: (F, D) normalised.
            tcp: (F, 3) position in metres.
            sentences: (F, E) embeddings scaled to values of about 1; None without language.
        """
        offsets = points[..., :3] - tcp[:, None]
        features = self.points(torch.cat([points, offsets / _NEAR], dim=-1))
        weights = self._weights(features, state, sentences)
        position = weights @ points[..., :3]
        # The mean offset, coarse over the whole table and fine around the hand.
        offset = position - tcp[:, None]
        seen = [position / _FAR, offset / _FAR, (offset / _NEAR).tanh()]
        attended = torch.cat([*seen, weights @ self.values(features)], dim=-1)
        return self.output(attended.flatten(1)), position

    def _weights(self, features: Tensor, state: Tensor, sentences: Tensor | None) -> Tensor:
        """(F, heads, P), each head's sum to 1."""
        asked = state if sentences is None else torch.cat([sentences, state], dim=-1)
        queries = self.queries(asked).unflatten(-1, (self.heads, _KEY))
        # Without the usual division by the root of the width: hundreds of points would share the
        # weight evenly, and a gradient reaches the few that matter by a hundredth: it teaches
        # nothing.
        return (queries @ self.keys(features).mT).softmax(dim=-1)


class ObservationEncoder(nn.Module):
    """Features of observation frames: of the cloud, of the state, and of the attention."""

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        width = config.encoder_output_dim
        self.extractor = PointEncoder(config)
        self.state_mlp = nn.Sequential(
            Linear(agent_pos_dim(config.agent_pos), 64), nn.ReLU(), Linear(64, width)
        )
        self.attention = PointAttention(config, 2 * width) if config.attention_heads else None
        self.output_dim = 2 * width if self.attention is None else 4 * width

    def forward(
        self,
        points: Tensor,
        state: Tensor,
        tcp: Tensor | None = None,
        sentences: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features (F, output_dim) of frames, and what each head looks at (F, heads, 3), metres.

        Args:
            points: (F, P, 3 or 6), normalised.
            state: (F, D), normalised.
            tcp: (F, 3) metres; needed for attention alone.
            sentences: (F, E) embeddings; needed for attention with language alone.
        """
        features = [self.extractor(points), self.state_mlp(state)]
        looked_at = None
        if self.attention is not None:
            assert tcp is not None
            found, looked_at = self.attention(points, state, tcp, sentences)
            features.append(found)
        return torch.cat(features, dim=-1), looked_at
