"""The whole policy compiles to one graph, and partial batches are compiled once."""

from typing import Any

import numpy as np
import pytest
import torch

from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.precision import Precision

CONFIG = DP3Config(down_dims=(16, 32), point_widths=(8, 16), encoder_output_dim=8)


class Counted:
    """A backend of torch.compile that runs graphs as they are and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield Counted()
    torch._dynamo.reset()


def make_policy() -> DP3:
    torch.manual_seed(0)
    policy = DP3(CONFIG)
    random = np.random.default_rng(0)
    limits = Normalizer.fit(CONFIG, random.normal(size=(50, 15)), random.uniform(-1, 1, (50, 7)))
    policy.set_normalizer(limits)
    return policy


def batch_of(size: int) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    torch.manual_seed(size)
    obs = {"point_cloud": torch.rand(size, 2, 64, 3), "agent_pos": torch.rand(size, 2, 15)}
    batch = {"obs": obs, "action": torch.rand(size, 16, 7) * 2 - 1}
    return batch, torch.randn(size, 16, 7), torch.randint(100, (size,))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_policy_is_one_graph_for_each_size_of_a_batch(backend, precision):
    policy = make_policy()
    policy.precision = Precision(precision)
    policy.compile_parts(backend=backend)
    for epoch in range(3):
        for size in (8, 8, 3):  # an epoch with a partial batch at its end
            policy(*batch_of(size)).backward()
        assert backend.graphs == 2, f"recompiled in epoch {epoch}"
    assert all(weight.grad is not None for weight in policy.parameters())


def test_compiled_policy_learns_and_predicts_as_it_does_uncompiled(backend):
    plain, compiled = make_policy(), make_policy()
    compiled.compile_parts(backend=backend)
    losses = []
    for policy in (plain, compiled):
        loss = policy(*batch_of(6))
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    obs, noise = batch_of(2)[0]["obs"], torch.randn(2, 16, 7)
    found = [policy.predict_action(obs, noise=noise)["action"] for policy in (plain, compiled)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_denoiser_of_all_ten_steps_is_compiled_once(backend):
    policy = make_policy()
    policy.compile_parts(backend=backend)
    obs = batch_of(1)[0]["obs"]
    for _ in range(2):
        policy.predict_action(obs)
    assert backend.graphs == 1
