"""Who takes part in a comparison of steerings: a policy each, and how it is steered.

Example::

    for name, contender in contenders(policy, methods, ["reference"], rival).items(): ...
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3
from langsteer.policies.loading import load_policy
from langsteer.steering.config import SteeringConfig

RIVAL = "language"
"""The name of a policy that was trained with sentences and is told them."""


@dataclass(frozen=True)
class Contender:
    """A policy and how it is steered."""

    policy: DP3
    steering: SteeringConfig


def contenders(
    policy: DP3,
    methods: Mapping[str, SteeringConfig],
    controls: Sequence[str],
    rival: DP3 | None = None,
) -> dict[str, Contender]:
    """Each method; each control, the same steering of a network that knows nothing; the rival.

    The rival, a policy that was trained with sentences, is told the instruction and not steered.
    """
    found = {name: Contender(policy, steering) for name, steering in methods.items()}
    blank = blank_network(policy)
    for name in controls:
        found[f"{name}, blank network"] = Contender(blank, methods[name])
    if rival is not None:
        found[RIVAL] = Contender(rival, SteeringConfig(RIVAL))
    return found


def blank_network(policy: DP3) -> DP3:
    """A copy whose denoiser puts out zeros: what a steering does without any learned policy.

    What it still achieves is the guidance's own doing, a demonstration that is replayed through
    the sampler; only what goes beyond shows that the policy contributes.
    """
    blank = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in blank.model.final_conv[-1].parameters():
            parameter.zero_()
    return blank


def load_base(path: str | Path, device: str = "cpu", precision: str = "auto") -> DP3:
    """The policy that is steered.

    Raises:
        UserError: it follows sentences, so that even unsteered it would be told what to do.
    """
    policy = load_policy(path, device, precision=precision)
    if policy.language is not None:
        raise UserError(
            f"checkpoint={path}: this policy is told the instruction, and the base of a comparison "
            "must not be; give it as rival="
        )
    return policy


def load_rival(path: str | Path, guidance: float | None, base: DP3, device: str = "cpu") -> DP3:
    """The language-conditioned policy that steering is measured against.

    Args:
        path: its checkpoint.
        guidance: scale of its classifier-free guidance; the checkpoint's own if None.
        base: the policy that is steered.
        device: of the rival; it computes in the base's precision.

    Raises:
        UserError: it follows no sentences, or sees other point clouds than the base.
    """
    rival = load_policy(path, device, precision=base.precision.name)
    if rival.language is None:
        raise UserError(
            f"rival={path}: this policy follows no sentences; train one with policy=steering_rival"
        )
    rival.check_pipeline(Agent(base).pipeline)
    if guidance is not None:
        if type(guidance) not in (int, float):
            raise UserError(f"rival_guidance={guidance!r}: expected a number")
        rival.language.scale = guidance
    return rival
