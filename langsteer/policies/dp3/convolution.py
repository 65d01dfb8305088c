"""Convolutions over short sequences, as matrix products if that is faster.

The U-Net's sequences are 16, 8 and 4 long. A library's 1-D convolution on a CPU is slow at large
weights: it reorders them at each call. Gathering the windows and multiplying once by the weight
matrix takes a fifth to a half of its time (benchmarks/policy.py). Weights keep the layout of
`torch.nn.Conv1d`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from langsteer.policies.dp3.products import linear

# Below this many weights the library's convolution is the faster one.
LIBRARY_BELOW = 100_000


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of ``x`` is a matrix product: the one place of this decision."""
    return x.device.type == "cpu" and weight.numel() >= LIBRARY_BELOW


class Conv(nn.Conv1d):
    """`torch.nn.Conv1d` with zero padding and no dilation or groups: (B, C, T) to (B, C', T')."""

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(dim_in, dim_out, kernel, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if not multiplies(x, self.weight):
            return super().forward(x)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        padded = functional.pad(x, (padding, padding)) if padding else x
        windows = padded.unfold(2, kernel, stride).permute(0, 2, 1, 3).flatten(2)
        return linear(windows, self.weight.flatten(1), self.bias).transpose(1, 2)


class UpConv(nn.ConvTranspose1d):
    """The transposed convolution to double a length: kernel 4, stride 2, padding 1."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, T) to (B, C, 2T).

        Input t adds to outputs 2t-1 ... 2t+2 through taps 0 ... 3. So an even output 2t consists
        of tap 1 of t and tap 3 of t-1, and an odd one 2t+1 of tap 2 of t and tap 0 of t+1.
        """
        if not multiplies(x, self.weight):
            return super().forward(x, output_size)
        taps = linear(x.transpose(1, 2), self.weight.flatten(1).t()).unflatten(-1, (-1, 4))
        even = taps[..., 1] + functional.pad(taps[:, :-1, :, 3], (0, 0, 1, 0))
        odd = taps[..., 2] + functional.pad(taps[:, 1:, :, 0], (0, 0, 0, 1))
        assert self.bias is not None
        out = torch.stack([even, odd], dim=2).flatten(1, 2) + self.bias
        return out.transpose(1, 2)
