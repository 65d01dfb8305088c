"""Matrix products by the fastest library.

On a CPU, PyTorch's `linear` goes to MKL, and MKL uses only AVX2 on processors of others than Intel.
oneDNN, a part of PyTorch too, uses all there is: 2.3 times the speed on an AMD EPYC with AVX-512
(benchmarks/policy.py). Elsewhere this is `torch.nn.functional.linear`.

Example::

    y = linear(x, weight, bias)  # (..., K), (N, K), (N,) -> (..., N)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def uses_onednn(x: Tensor) -> bool:
    """Whether products of ``x`` go to oneDNN: the one place of this decision."""
    return (
        # The compiler chooses for itself: it cannot lower ours, nor trace the questions below.
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for x (M, K), weight (N, K), by oneDNN and without a gradient."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()  # oneDNN takes transposed matrices, but no overlapping ones
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if for_x else None,
            _product(grad.t(), x.t()) if for_weight else None,
            grad.sum(dim=0) if for_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``: x (..., K), weight (N, K), bias (N,) to (..., N)."""
    if not uses_onednn(x):
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    if torch.is_grad_enabled():
        # torch leaves `apply` untyped.
        out: Tensor = _OneDnnLinear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    else:
        out = _product(rows, weight, bias)
    return out.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return linear(x, self.weight, self.bias)
