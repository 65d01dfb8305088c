"""The sampler is DDIM as diffusers has it, and each parametrisation is the same process."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.policies.dp3 import DP3Config
from langsteer.policies.dp3.ddim import Diffusion, ddim_previous

PREDICTIONS = ["sample", "v", "preconditioned"]


def scheduler_of(prediction, steps):
    scheduler = DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type={"sample": "sample", "v": "v_prediction"}[prediction],
    )
    scheduler.set_timesteps(steps)
    return scheduler


@settings(max_examples=30)
@given(steps=st.integers(1, 100), seed=st.integers(0, 10**6), scale=st.floats(0.1, 2))
@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_sampling_is_that_of_diffusers(prediction, steps, seed, scale):
    diffusion = Diffusion(DP3Config(prediction=prediction, num_inference_steps=steps))
    scheduler = scheduler_of(prediction, steps)
    generator = torch.Generator().manual_seed(seed)
    x = expected = torch.randn(2, 16, 7, generator=generator)
    plans = diffusion.steps()
    assert [plan.timestep for plan in plans] == scheduler.timesteps.tolist()
    for plan in plans:
        # Any bounded function of x stands for the network; above 1 the clip has work to do.
        weights = torch.randn(7, 7, generator=generator) / 7**0.5
        estimate = diffusion.clean_estimate(scale * torch.tanh(x @ weights), x, plan.timestep)
        x = ddim_previous(x, estimate, estimate.clamp(-1, 1), plan)
        output = scale * torch.tanh(expected @ weights)
        expected = scheduler.step(output, plan.timestep, expected).prev_sample
        torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
        x = expected  # rounding shall not add up over the steps


def test_noise_levels_and_noising_are_those_of_diffusers():
    diffusion, scheduler = Diffusion(DP3Config()), scheduler_of("sample", 10)
    torch.testing.assert_close(diffusion.alphas_cumprod, scheduler.alphas_cumprod)
    clean, noise, timesteps = torch.randn(100, 16, 7), torch.randn(100, 16, 7), torch.arange(100)
    expected = scheduler.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(diffusion.add_noise(clean, noise, timesteps), expected)


def test_the_velocity_target_is_that_of_diffusers():
    diffusion, scheduler = Diffusion(DP3Config(prediction="v")), scheduler_of("v", 10)
    clean, noise, timesteps = torch.randn(100, 16, 7), torch.randn(100, 16, 7), torch.arange(100)
    expected = scheduler.get_velocity(clean, noise, timesteps)
    target = diffusion.network_target(clean, noise, timesteps)
    torch.testing.assert_close(target, expected, atol=1e-5, rtol=1e-5)


@given(timestep=st.integers(0, 98), seed=st.integers(0, 100))
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_hits_its_target_recovers_the_clean_trajectory(prediction, timestep, seed):
    diffusion = Diffusion(DP3Config(prediction=prediction))
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 16, 7, generator=generator) * 2 - 1
    noise = torch.randn(1, 16, 7, generator=generator)
    timesteps = torch.tensor([timestep])
    noisy = diffusion.add_noise(clean, noise, timesteps)
    target = diffusion.network_target(clean, noise, timesteps)
    estimate = diffusion.clean_estimate(target, noisy, timesteps)
    torch.testing.assert_close(estimate, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("timestep", [0, 50, 99])
def test_preconditioned_inputs_and_targets_have_unit_variance(timestep):
    diffusion = Diffusion(DP3Config(prediction="preconditioned", sigma_data=0.4))
    generator = torch.Generator().manual_seed(0)
    clean = 0.4 * torch.randn(500, 16, 7, generator=generator)
    noise = torch.randn(500, 16, 7, generator=generator)
    timesteps = torch.full((500,), timestep)
    noisy = diffusion.add_noise(clean, noise, timesteps)
    for values in (
        diffusion.network_input(noisy, timesteps),
        diffusion.network_target(clean, noise, timesteps),
    ):
        assert values.std().item() == pytest.approx(1, abs=0.02)


def test_preconditioning_keeps_a_nearly_clean_path_whatever_the_network_says():
    diffusion = Diffusion(DP3Config(prediction="preconditioned"))
    clean, output = torch.rand(1, 16, 7), torch.ones(1, 16, 7)
    shift = diffusion.clean_estimate(output, clean, torch.tensor([0])) - clean
    assert shift.abs().max() < 0.03


def test_constants_survive_building_on_the_meta_device():
    with torch.device("meta"):
        built = Diffusion(DP3Config(prediction="preconditioned"))
    assert torch.equal(
        built.coefficients, Diffusion(DP3Config(prediction="preconditioned")).coefficients
    )
    assert np.isfinite(built.coefficients.numpy()).all()
