"""With the reference's weights, every intermediate result is the reference's."""

from functools import partial

import numpy as np
import pytest
import torch

from langsteer.policies.dp3 import DP3, DP3Config
from langsteer.policies.dp3.reference import load_reference_state_dict

assert_close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=["dp3", "simple_dp3"])
def golden(request, shared):
    with np.load(shared / "reference" / f"{request.param}_golden.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    prefix = "state_dict/"
    weights = {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    blocks = 2 if request.param == "dp3" else 1
    policy = DP3(DP3Config(down_dims=(32, 64, 128), blocks_per_stage=blocks))
    load_reference_state_dict(policy, weights, request.param)
    obs = {key: arrays[key][:, :2] for key in ("point_cloud", "agent_pos")}
    return policy, arrays, obs


def test_encoder_features_are_the_references(golden):
    policy, arrays, obs = golden
    features = policy.encode(obs).unflatten(1, (2, -1)).flatten(0, 1)
    assert_close(features, arrays["encoder_output"])


def test_unet_output_is_the_references(golden):
    policy, arrays, obs = golden
    output = policy.model(arrays["unet_sample"], arrays["unet_timesteps"], policy.encode(obs))
    assert_close(output, arrays["unet_output"])


def test_noised_actions_and_loss_are_the_references(golden):
    policy, arrays, obs = golden
    noise, timesteps = arrays["loss_noise"], arrays["loss_timesteps"]
    clean = policy.normalizer.action.normalize(arrays["actions"])
    noisy = policy.diffusion.add_noise(clean, noise, timesteps)
    assert_close(noisy, arrays["noisy_action"])
    batch = {"obs": obs, "action": arrays["actions"]}
    loss = policy.compute_loss(batch, noise=noise, timesteps=timesteps)
    assert_close(loss, arrays["loss"])


def test_sampled_and_executed_actions_are_the_references(golden):
    policy, arrays, obs = golden
    predicted = policy.predict_action(obs, noise=arrays["x_T"])
    assert_close(predicted["action_pred"], arrays["action_pred"])
    assert_close(predicted["action"], arrays["action"])
    normalized = policy.normalizer.action.normalize(predicted["action_pred"])
    assert_close(normalized, arrays["ddim_sample_normalized"])
    steps = [plan.timestep for plan in policy.diffusion.steps()]
    assert steps == arrays["ddim_timesteps"].tolist()
