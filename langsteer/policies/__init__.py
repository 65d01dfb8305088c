"""Policies; `shipped_policy` is the one that comes with the package."""

from pathlib import Path


def shipped_policy() -> Path:
    """The folder of the language policy that comes with the package; MODEL_CARD.md lies in it.

    All commands take it: ``policy.ckpt_path=shipped``. Needs no PyTorch.
    """
    return Path(__file__).parent / "shipped"
