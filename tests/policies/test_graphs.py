"""Sampling waits for no GPU, uploads nothing twice, and may replay its denoiser."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.dp3.graphs import DenoiserGraphs
from langsteer.steering.config import Strength
from langsteer.steering.guidance import GradientGuidance
from langsteer.steering.objectives import Reference, Sum, ValueMap

CONFIG = DP3Config(down_dims=(16, 32), point_widths=(8, 16), encoder_output_dim=8)


class Replayed:
    """A recording without a GPU: it does the work again, into the memory of the first result."""

    def __init__(self):
        self.recorded, self.replays = 0, 0

    def __call__(self, work):
        self.recorded += 1
        self.output = work()
        self.work = work
        return self, self.output

    def replay(self):
        self.replays += 1
        self.output.copy_(self.work())


class Called(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def policy() -> DP3:
    torch.manual_seed(0)
    made = DP3(CONFIG).requires_grad_(False).eval()
    random = np.random.default_rng(0)
    limits = Normalizer.fit(CONFIG, random.normal(size=(50, 15)), random.uniform(-1, 1, (50, 7)))
    made.set_normalizer(limits)
    return made


def observation() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"point_cloud": torch.rand(1, 2, 64, 3), "agent_pos": torch.rand(1, 2, 15)}


def guidance() -> GradientGuidance:
    torch.manual_seed(2)
    way = ValueMap(torch.rand(7), torch.rand(20, 3))
    objective = Sum([Reference(torch.rand(3, 15, 7)), way], [1.0, 0.5])
    return GradientGuidance(objective, torch.rand(6), 1, Strength())


@pytest.mark.parametrize("guided", [False, True])
def test_replayed_denoiser_predicts_as_the_denoiser_itself(policy, guided):
    obs, recorder = observation(), Replayed()
    replayed = DenoiserGraphs(recorder)
    for seed in (3, 4):
        noise = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(seed))
        arguments = {"noise": noise, "samples_per_observation": 2}
        found = []
        for policy.graphs in (None, replayed):
            steered = guidance() if guided else None
            found.append(policy.predict_action(obs, guidance=steered, **arguments)["action_pred"])
        assert torch.equal(*found)
    assert (recorder.recorded, recorder.replays) == (1, 20)


def test_large_batches_are_not_recorded(policy):
    recorder = Replayed()
    policy.graphs = DenoiserGraphs(recorder, most=4)
    policy.predict_action(observation(), samples_per_observation=5)
    assert recorder.recorded == 0


def test_prediction_asks_the_device_for_no_number(policy):
    """Each question waits for a GPU."""
    obs, noise = observation(), torch.randn(1, 16, 7)
    policy.predict_action(obs, noise=noise)
    with Called() as called:
        policy.predict_action(obs, noise=noise)
    assert not [name for name in called.names if "_local_scalar_dense" in name or "item" in name]
    assert not [name for name in called.names if "lift_fresh" in name], "something was uploaded"


def test_guidance_uploads_its_constants_once(policy):
    obs, noise, steered = observation(), torch.randn(1, 16, 7), guidance()
    policy.predict_action(obs, noise=noise, guidance=steered)
    with Called() as called:
        policy.predict_action(obs, noise=noise, guidance=steered)
    assert not [name for name in called.names if "lift_fresh" in name]


def test_normalizer_that_was_never_fitted_is_still_found(policy):
    fresh = DP3(CONFIG)
    assert not fresh.normalizer.fitted
    fresh.set_normalizer(policy.normalizer)
    assert fresh.normalizer.fitted
