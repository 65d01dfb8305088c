"""The arithmetic of a policy: float32, TF32 or bfloat16.

Example::

    precision = Precision.choose("auto", device)
    with precision.products(device):
        with precision.autocast(device):
            output = network(x)
        loss(output).backward()

Weights, optimiser, encoder and loss are float32 in all of them. The encoder stays out of bfloat16:
its layer norms would be float32 all the same, and coordinates be rounded by up to 2 mm.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)
_NAMES = {"fp32": "fp32", "tf32": "TF32", "bf16": "bf16 autocast"}


@dataclass(frozen=True)
class Precision:
    """One of three ways to compute; the same in training, validation and sampling.

    Attributes:
        name: ``fp32``: float32 throughout. ``tf32``: a GPU rounds the factors of products to 10
            bits of mantissa (NVIDIA's TF32); a CPU computes as in fp32. ``bf16``: besides, the
            denoiser's products are bfloat16, by autocast.
    """

    name: str = "fp32"

    @classmethod
    def choose(cls, wanted: str, device: torch.device) -> "Precision":
        """``auto`` is bf16 on GPUs with bfloat16 units, else fp32; a CPU is slow in bf16."""
        if wanted != "auto":
            return cls(wanted)
        # torch.cuda.is_bf16_supported also counts older GPUs; these emulate it, slowly.
        able = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
        return cls("bf16" if able else "fp32")

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Around the denoiser's forward pass, and not around a backward pass."""
        if self.name != "bf16":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    @contextmanager
    def products(self, device: torch.device) -> Iterator[None]:
        """Around forward and backward passes: whether a GPU's float32 products may be TF32."""
        if device.type != "cuda":
            yield
            return
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.name != "fp32"
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    @contextmanager
    def weights_cast(self, model: nn.Module) -> Iterator[None]:
        """For a block that only samples: `cast_weights`, and the float32 weights afterwards."""
        kept = [(weight, weight.data) for weight in _product_weights(model)]
        try:
            self.cast_weights(model)
            yield
        finally:
            for weight, data in kept:
                weight.data = data

    def cast_weights(self, model: nn.Module) -> None:
        """Round the weights of products once instead of at every call of autocast; same results.

        Autocast remembers its rounding for trained weights, and for no others.
        """
        if self.name == "bf16":
            for weight in _product_weights(model):
                weight.data = weight.data.bfloat16()

    def __str__(self) -> str:
        return _NAMES[self.name]


def _product_weights(model: nn.Module) -> list[nn.Parameter]:
    products = [module for module in model.modules() if isinstance(module, _PRODUCTS)]
    return [weight for module in products for weight in module.parameters(recurse=False)]
