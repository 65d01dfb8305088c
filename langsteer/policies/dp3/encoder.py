"""Encode observation frames: PointNet over the cloud, and a small network over the robot's state.

Example::

    features = ObservationEncoder(DP3Config())(points, state)  # (F, P, 3), (F, 15) -> (F, 128)

Names of submodules are the reference's, so that its state dicts fit.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.normalizer import agent_pos_dim


class PointEncoder(nn.Module):
    """A network per point, the maximum over the points, a projection: the order of points is free.

    Per point: linear, layer norm, ReLU for each of ``point_widths``; coloured points get one more
    linear layer of twice the last width, without norm or ReLU, as in the reference.
    """

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((config.point_dim, *config.point_widths)):
            layers += [nn.Linear(width_in, width_out), nn.LayerNorm(width_out), nn.ReLU()]
        pooled = config.point_widths[-1]
        if config.use_pc_color:
            layers.append(nn.Linear(pooled, 2 * pooled))
            pooled *= 2
        self.mlp = nn.Sequential(*layers)
        self.final_projection = nn.Sequential(
            nn.Linear(pooled, config.encoder_output_dim), nn.LayerNorm(config.encoder_output_dim)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Normalised points (F, P, 3 or 6) to features (F, D)."""
        projected: Tensor = self.final_projection(self.mlp(points).amax(dim=1))
        return projected


class ObservationEncoder(nn.Module):
    """Features of observation frames: those of the cloud, then those of the state."""

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        width = config.encoder_output_dim
        self.extractor = PointEncoder(config)
        self.state_mlp = nn.Sequential(
            nn.Linear(agent_pos_dim(config.agent_pos), 64), nn.ReLU(), nn.Linear(64, width)
        )
        self.output_dim = 2 * width

    def forward(self, points: Tensor, state: Tensor) -> Tensor:
        """Points (F, P, 3 or 6) and state (F, D), both normalised, to features (F, output_dim)."""
        return torch.cat([self.extractor(points), self.state_mlp(state)], dim=-1)
