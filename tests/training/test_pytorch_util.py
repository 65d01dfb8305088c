"""Learning rate, optimiser, non-finite steps, exact sums and device choice."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.policies.cpu_threads import choose_threads
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.training.config import TrainingConfig
from langsteer.training.pytorch_util import (
    choose_device,
    learning_rate,
    make_deterministic,
    make_optimizer,
    require_gradients,
    step_unless_broken,
    summable,
    threads_restored,
)
from langsteer.training.world import World

TINY_POLICY = DP3Config(down_dims=(8, 16), point_widths=(8,), encoder_output_dim=8)


@pytest.fixture
def defaults():
    return TrainingConfig.from_dict(compose("train", ["training=dp3_calvin"])["training"])


def test_learning_rate_warms_up_and_falls_as_a_cosine_per_step():
    """Exactly 0 at step 0, 2e-7 at step 1, 1e-4 at 500, then a cosine to 0."""
    rates = [learning_rate(step, 10_500, 1e-4, 500) for step in (0, 1, 500, 5500, 10_500)]
    assert rates[0] == 0
    assert rates[1:] == pytest.approx([2e-7, 1e-4, 5e-5, 0.0], abs=1e-12)


def test_learning_rate_never_rises_again_past_the_end():
    assert learning_rate(2000, 1000, 1e-4, 10) == pytest.approx(0.0)


def test_optimizer_is_the_references(defaults):
    optimizer = make_optimizer(nn.Linear(2, 2), defaults)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.95, 0.999), 1e-8, 1e-6)
    assert group["fused"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradient_that_is_not_finite_never_reaches_the_weights(defaults, value):
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, defaults)
    model(torch.ones(1, 3)).sum().backward()
    step_unless_broken(optimizer, model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    model(torch.ones(1, 3)).sum().backward()
    assert model.weight.grad is not None
    model.weight.grad[0, 1] = value
    assert not step_unless_broken(optimizer, model).isfinite()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    for state, moment in zip(optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], moment)


def test_weight_that_the_loss_does_not_reach_is_named_at_the_first_step():
    policy = DP3(TINY_POLICY)
    for weight in policy.parameters():
        weight.grad = torch.zeros_like(weight)
    require_gradients(policy)
    policy.obs_encoder.extractor.mlp[0].weight.grad = None
    named = r"obs_encoder\.extractor\.mlp\.0\.weight got no gradient in the first step"
    with pytest.raises(UserError, match=named):
        require_gradients(policy)


def test_training_stops_at_the_first_step_where_a_layer_is_not_reached(training, monkeypatch):
    """As autocast's cache of PyTorch before 2.13 would leave it."""
    look = DP3._look

    def detached(self, obs, sentences):
        features, looked_at = look(self, obs, sentences)
        return features.detach(), looked_at

    monkeypatch.setattr(DP3, "_look", detached)
    output = training.here("training.experiment_name=run", status=2)
    assert re.search(r"obs_encoder\S+ and \d+ more weights got no gradient", output)


def test_gradients_are_not_clipped(defaults):
    plain, ours = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    ours.load_state_dict(plain.state_dict())
    reference = torch.optim.AdamW(
        plain.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
    )
    optimizer = make_optimizer(ours, defaults)
    for scale in (1.0, 1e3, 3.0):  # a clipped second gradient would weigh less in the moments
        for model in (plain, ours):
            model(torch.tensor([[scale, -scale]])).sum().backward()
        reference.step()
        reference.zero_grad()
        step_unless_broken(optimizer, ours)
    torch.testing.assert_close(ours.weight, plain.weight, rtol=0, atol=1e-9)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=30), st.integers(1, 29))
def test_sums_of_losses_do_not_depend_on_where_an_interruption_cuts_them(values, cut):
    parts = [summable(torch.tensor(value, dtype=torch.float64)) for value in values]
    whole = sum(parts)
    assert float(sum(parts[:cut]) + sum(parts[cut:])) == float(whole)
    assert float(whole) == pytest.approx(sum(values), abs=1e-9)


def test_normalizer_moves_with_the_policy():
    policy = DP3(TINY_POLICY)
    policy.set_normalizer(Normalizer.fit(TINY_POLICY, np.eye(9, 15), np.eye(9, 7)))
    policy.to("meta")
    assert {buffer.device.type for buffer in policy.buffers()} == {"meta"}
    assert policy.device.type == "meta"


def test_missing_gpu_is_an_error_where_one_is_wanted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"training\.device=cuda: no GPU"):
        choose_device("cuda", World())
    assert choose_device("auto", World()).type == "cpu"


@pytest.mark.parametrize(
    ("cuda", "reason"), [(None, "built without CUDA; install a CUDA build"), ("12.8", "nvidia-smi")]
)
def test_job_with_gpus_never_trains_on_the_cpu_by_accident(monkeypatch, cuda, reason):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(UserError, match=f"this job has 4 on the node.*{reason}"):
        choose_device("auto", World(), gpus_of_job=4)
    assert choose_device("cpu", World(), gpus_of_job=4).type == "cpu"


@pytest.mark.parametrize(("shown", "local_rank", "number"), [(4, 3, 3), (1, 3, 0), (1, 0, 0)])
def test_each_rank_takes_the_gpu_of_its_local_rank(monkeypatch, shown, local_rank, number):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: shown)
    world = World(rank=3, local_rank=local_rank, world_size=4, launcher="slurm")
    assert choose_device("auto", world) == torch.device("cuda", number)


@pytest.mark.parametrize(("launcher", "shown"), [("slurm", 2), ("torchrun", 2), ("torchrun", 1)])
def test_more_ranks_than_gpus_on_a_node_is_an_error(monkeypatch, launcher, shown):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: shown)
    with pytest.raises(UserError, match="local rank 2 has no GPU"):
        choose_device("auto", World(rank=2, local_rank=2, world_size=4, launcher=launcher))


@pytest.mark.parametrize(
    ("widths", "device", "environment", "threads"),
    [
        ((8, 16), "cpu", {}, 1),
        ((512, 1024), "cpu", {}, 2),
        ((8, 16), "cuda", {}, 2),
        ((8, 16), "cpu", {"OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_small_network_on_a_cpu_takes_one_thread(widths, device, environment, threads):
    with torch.device("meta"):
        policy = DP3(dataclasses.replace(TINY_POLICY, down_dims=widths))
    before = torch.get_num_threads()
    with threads_restored():
        torch.set_num_threads(2)
        choose_threads(policy, torch.device(device), environment)
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == before


def test_start_says_how_many_threads_compute(training):
    output = training.here("training.num_epochs=1")
    assert re.search(r"1 process, cpu, \d+ threads?, fp32", output)


def test_deterministic_training_is_asked_of_pytorch_before_a_gpu_is(training):
    output = training.run(
        "training.experiment_name=run",
        "training.num_epochs=1",
        "training.deterministic=true",
    )
    assert "fused AdamW, deterministic" in output


def test_deterministic_settings_reach_cublas_and_pytorch(monkeypatch):
    environment: dict[str, str] = {}
    try:
        make_deterministic(environment)
        assert environment == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
