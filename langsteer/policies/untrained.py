"""The controls of a policy: its network before training, and a blank one.

Example::

    policy = load_policy("outputs/checkpoints/my_run/latest.ckpt")
    control = untrained(policy)             # of the policy: what does chance do?
    control = blank_network(policy)         # of a steering: what does guidance do?
"""

import copy

import torch

from langsteer.policies.dp3 import DP3

_SEED = 0


def untrained(policy: DP3) -> DP3:
    """A network of the same configuration, normaliser and precision, with freshly drawn weights.

    The draw is the same each time; the caller's random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        fresh = DP3(policy.config, policy.pipeline)
    fresh.normalizer.load_state_dict(policy.normalizer.state_dict())
    if fresh.language is not None and policy.language is not None:
        fresh.language.load_state_dict(policy.language.state_dict())
    fresh.precision = policy.precision
    fresh.to(policy.device).eval().requires_grad_(False)
    fresh.precision.cast_weights(fresh.model)
    return fresh


def blank_network(policy: DP3) -> DP3:
    """A copy with a denoiser of zeros: what a steering does without any learned policy.

    Its successes are the guidance's own doing: a demonstration replayed through the sampler. A
    policy contributes only by more successes than these.
    """
    blank = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in blank.model.final_conv[-1].parameters():
            parameter.zero_()
    return blank
