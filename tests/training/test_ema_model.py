"""The average of the weights is an average, and leaves the trained model alone."""

import pytest
import torch
from torch import nn

from langsteer.training.ema_model import EMAModel


def test_averaged_model_is_a_copy_and_the_original_still_trains():
    model = nn.Linear(3, 2)
    ema = EMAModel(model)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        model.weight += 1.0
    assert not torch.equal(model.weight, ema.model.get_parameter("weight"))
    assert not any(weight.requires_grad for weight in ema.model.parameters())


def test_decay_is_the_references_at_each_update():
    """0, 0, .405, .561 for the first calls, .9944 at 1 k, .9990 at 10 k, .9999 at last."""
    ema = EMAModel(nn.Linear(1, 1))
    expected = {0: 0.0, 1: 0.0, 2: 0.405, 3: 0.561, 1000: 0.9944, 10_000: 0.9990, 215_000: 0.9999}
    for ema.updates, decay in expected.items():
        assert ema.decay == pytest.approx(decay, abs=6e-4 if ema.updates < 10 else 5e-5)
    ema.updates = 10**9
    assert ema.decay == 0.9999


def test_update_is_the_weighted_mean():
    model = nn.Linear(2, 2)
    ema = EMAModel(model)
    ema.updates = 7
    average = ema.model.get_parameter("weight")
    before, decay = average.clone(), ema.decay
    with torch.no_grad():
        model.weight.copy_(torch.rand(2, 2))
    ema.update(model)
    torch.testing.assert_close(average, decay * before + (1 - decay) * model.weight)
    assert ema.updates == 8
