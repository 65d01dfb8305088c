"""The denoiser: a U-Net over time; timestep and observation modulate its blocks (FiLM).

Example::

    unet = FilmUNet(DP3Config(), condition_dim=256)
    x0_hat = unet(noisy, timesteps, condition)  # (B, 16, 7), (B,), (B, 256) -> (B, 16, 7)

Architecture and names of submodules are the reference's (with residual blocks after Janner et al.
2022, "Planning with Diffusion"), so its state dicts fit.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.convolution import Conv, UpConv
from langsteer.policies.dp3.products import Linear

Modulations = list[Tensor]


class TimestepEmbedding(nn.Module):
    """Sinusoidal positions (Vaswani et al. 2017) of integer timesteps: (B,) to (B, D)."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        decay = torch.exp(torch.arange(half, device="cpu") * -(math.log(10000) / (half - 1)))
        # On the CPU even if a model is built on the meta device, for weights to come.
        self.register_buffer("frequencies", decay, persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Embed timesteps (B,) as (B, D), sines first."""
        phase = timesteps[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ConvBlock(nn.Module):
    """Convolution, group norm, Mish; length is kept."""

    def __init__(self, dim_in: int, dim_out: int, config: DP3Config) -> None:
        super().__init__()
        kernel = config.kernel_size
        self.block = nn.Sequential(
            Conv(dim_in, dim_out, kernel, padding=kernel // 2),
            nn.GroupNorm(config.n_groups, dim_out),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T)."""
        out: Tensor = self.block(x)
        return out


class ResidualBlock(nn.Module):
    """Two `ConvBlock`s with a modulation between them, and a way around."""

    def __init__(self, dim_in: int, dim_out: int, condition_dim: int, config: DP3Config) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [ConvBlock(dim_in, dim_out, config), ConvBlock(dim_out, dim_out, config)]
        )
        self.cond_encoder = nn.Sequential(nn.Mish(), Linear(condition_dim, 2 * dim_out))
        self.residual_conv = Conv(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def modulation(self, condition: Tensor) -> Tensor:
        """Condition (B, D) to scale and bias of each channel (B, 2, C, 1)."""
        encoded: Tensor = self.cond_encoder(condition)
        return encoded.unflatten(-1, (2, -1)).unsqueeze(-1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T); the scale is the network's value itself, not one plus it."""
        out = self.blocks[0](x)
        out = torch.addcmul(modulation[:, 1], modulation[:, 0], out)
        out = self.blocks[1](out) + self.residual_conv(x)
        return out


class Downsample(nn.Module):
    """Halve the length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = Conv(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T/2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Double the length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = UpConv(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, 2T)."""
        out: Tensor = self.conv(x)
        return out


class UNetStage(nn.ModuleList):
    """Residual blocks of one length, then perhaps a change of length."""

    def residual_blocks(self) -> list[ResidualBlock]:
        """The blocks with a modulation."""
        return [block for block in self if isinstance(block, ResidualBlock)]

    def run(self, x: Tensor, modulations: Iterator[Tensor]) -> Tensor:
        """Apply the blocks, each with the next modulation."""
        for block in self.residual_blocks():
            x = block(x, next(modulations))
        return x

    def resample(self, x: Tensor) -> Tensor:
        """Apply the change of length, if the stage has one."""
        last = self[-1]
        return x if isinstance(last, ResidualBlock) else last(x)


class FilmUNet(nn.Module):
    """Noisy trajectory, timestep and condition to the network's prediction."""

    def __init__(self, config: DP3Config, condition_dim: int) -> None:
        super().__init__()
        embed = config.diffusion_step_embed_dim
        total = embed + condition_dim
        self.diffusion_step_encoder = nn.Sequential(
            TimestepEmbedding(embed),
            Linear(embed, 4 * embed),
            nn.Mish(),
            Linear(4 * embed, embed),
        )
        dims = (config.action_dim, *config.down_dims)
        count = config.blocks_per_stage

        def blocks(dim_in: int, dim_out: int) -> list[nn.Module]:
            inputs = [dim_in] + [dim_out] * (count - 1)
            return [ResidualBlock(dim, dim_out, total, config) for dim in inputs]

        stages = list(pairwise(dims))
        down = [UNetStage([*blocks(*stage), Downsample(stage[1])]) for stage in stages[:-1]]
        up = [
            UNetStage([*blocks(2 * dim_out, dim_in), Upsample(dim_in)])
            for dim_in, dim_out in reversed(stages[1:])
        ]
        self.down_modules = nn.ModuleList([*down, UNetStage(blocks(*stages[-1]))])
        self.mid_modules = UNetStage(blocks(dims[-1], dims[-1]))
        self.up_modules = nn.ModuleList(up)
        self.final_conv = nn.Sequential(
            ConvBlock(dims[1], dims[1], config), Conv(dims[1], config.action_dim, 1)
        )

    def modulations(self, timesteps: Tensor, condition: Tensor) -> Modulations:
        """Scale and bias of every residual block, in the order of `denoise`.

        They depend on timesteps (B,) and condition (B, D) alone. So a sampler can compute those of
        all its steps at once.
        """
        features = torch.cat([self.diffusion_step_encoder(timesteps), condition], dim=-1)
        stages = [*_stages(self.down_modules), self.mid_modules, *_stages(self.up_modules)]
        blocks = [block for stage in stages for block in stage.residual_blocks()]
        return [block.modulation(features) for block in blocks]

    def denoise(self, sample: Tensor, modulations: Modulations) -> Tensor:
        """Noisy trajectories (B, T, A) to predictions (B, T, A)."""
        pending = iter(modulations)
        x = sample.transpose(1, 2)
        skips: list[Tensor] = []
        # Down: fewer steps, more channels; each stage leaves its detail for the way up.
        for stage in _stages(self.down_modules):
            x = stage.run(x, pending)
            skips.append(x)
            x = stage.resample(x)
        x = self.mid_modules.run(x, pending)
        # Up: the detail comes back stage by stage, last one first.
        for stage in _stages(self.up_modules):
            x = stage.resample(stage.run(torch.cat([x, skips.pop()], dim=1), pending))
        out: Tensor = self.final_conv(x)
        return out.transpose(1, 2)

    def forward(self, sample: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """(B, T, A), (B,) and (B, D) to (B, T, A)."""
        return self.denoise(sample, self.modulations(timesteps, condition))


def _stages(modules: nn.ModuleList) -> list[UNetStage]:
    return [stage for stage in modules if isinstance(stage, UNetStage)]
