"""Are a file's tensors those of a policy? Found before any of them is used.

Example::

    check_tensors(path, payload["model"], policy.state_dict())
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langsteer.errors import UserError


def check_tensors(
    path: Path,
    found: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    unset: Collection[str] = (),
) -> None:
    """Check names, shapes and dtypes against the expected ones, and all numbers for being finite.

    Shapes come first: in a small file a view may repeat one number a billion times.

    Args:
        path: of the file, for the message.
        found: name to what the file holds.
        expected: name to tensor, on any device, meta included.
        unset: names of those that may be NaN as a whole: their users find it out and say more.

    Raises:
        UserError: one is not; it is named.
    """
    for name in sorted(found.keys() ^ expected.keys(), key=str):
        what = "missing" if name in expected else "unknown"
        raise UserError(
            f"{path}: the tensor {name!r:.200} is {what}: its weights do not fit its config"
        )
    for name, wanted in expected.items():
        wrong = _problem(found[name], wanted, name in unset)
        if wrong:
            raise UserError(f"{path}: the tensor {name} {wrong}")


def _problem(
    found: Any,  # noqa: ANN401 - whatever a file holds
    wanted: Tensor,
    may_be_unset: bool,
) -> str | None:
    """What is wrong with a tensor, or None."""
    if not isinstance(found, Tensor) or found.layout is not torch.strided or found.is_quantized:
        return f"is a {type(found).__name__} of another kind, expected a dense tensor"
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return (
            f"has shape {tuple(found.shape)} of {found.dtype}, its config asks for "
            f"{tuple(wanted.shape)} of {wanted.dtype}"
        )
    if not found.isfinite().all() and not (may_be_unset and found.isnan().all()):
        return "holds numbers that are not finite: damaged, or of a training that diverged"
    return None
