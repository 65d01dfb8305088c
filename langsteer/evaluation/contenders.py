"""Who takes part in a comparison of steerings: a policy each, and how it is steered.

Example::

    for name, contender in contenders(policy, methods, controls=["reference"]).items(): ...
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from langsteer.policies.dp3 import DP3
from langsteer.steering.config import SteeringConfig


@dataclass(frozen=True)
class Contender:
    """A policy and how it is steered."""

    policy: DP3
    steering: SteeringConfig


def contenders(
    policy: DP3, methods: Mapping[str, SteeringConfig], controls: Sequence[str]
) -> dict[str, Contender]:
    """Each method, and each control: the same steering of a network that knows nothing."""
    found = {name: Contender(policy, steering) for name, steering in methods.items()}
    blank = blank_network(policy)
    for name in controls:
        found[f"{name}, blank network"] = Contender(blank, methods[name])
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
