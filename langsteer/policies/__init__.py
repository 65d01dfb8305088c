"""Policies; `shipped_policy` and `shipped_base` are those that come with the package."""

from pathlib import Path


def shipped_policy() -> Path:
    """The folder of the language policy that comes with the package; MODEL_CARD.md lies in it.

    All commands take it: ``policy.ckpt_path=shipped``. Needs no PyTorch.
    """
    return Path(__file__).parent / "shipped"


def shipped_base() -> Path:
    """The folder of the base policy for steering: the language policy, trained further on play.

    All commands take it: ``policy.ckpt_path=shipped_base``. Needs no PyTorch.
    """
    return Path(__file__).parent / "shipped_base"
