"""The seam through which sampling is steered."""

import numpy as np
import pytest
import torch

from langsteer.policies.dp3 import DP3, DP3Config, Normalizer

CONFIG = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16), num_inference_steps=5)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    policy = DP3(CONFIG)
    generator = np.random.default_rng(0)
    robot_obs = generator.normal(size=(50, 15))
    actions = generator.uniform(-0.5, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(CONFIG, robot_obs, actions))
    return policy


@pytest.fixture
def obs():
    return {"point_cloud": torch.randn(3, 2, 20, 3), "agent_pos": torch.randn(3, 2, 15)}


def towards(target, strength):
    """Descend the squared distance of the estimate's actions to a target, in action units."""

    def guidance(x0_hat, step):
        with torch.enable_grad():
            variable = x0_hat.detach().requires_grad_()
            distance = (step.unnormalize(variable) - target).square().sum()
            (gradient,) = torch.autograd.grad(distance, variable)
        return x0_hat - strength * gradient

    return guidance


def test_guidance_of_no_strength_changes_no_bit(policy, obs):
    noise = torch.randn(3, 16, 7)
    plain = policy.predict_action(obs, noise=noise)["action_pred"]
    guided = policy.predict_action(obs, noise=noise, guidance=towards(0.0, 0.0))["action_pred"]
    assert torch.equal(plain, guided)


def test_guidance_moves_the_sample_towards_its_target(policy, obs):
    noise, target = torch.randn(3, 16, 7), torch.tensor(0.25)
    distances = [
        (policy.predict_action(obs, noise=noise, guidance=guidance)["action_pred"] - target)
        .abs()
        .mean()
        for guidance in (None, towards(target, 0.3), towards(target, 0.8))
    ]
    assert distances[0] > distances[1] > distances[2]


def test_guidance_sees_each_step_once_and_its_last_word_stands(policy, obs):
    seen = []
    target = torch.rand(3, 16, 7) * 2 - 1

    def guidance(x0_hat, step):
        seen.append((step, x0_hat))
        return target if step.plan.index == step.plan.total - 1 else x0_hat

    noise = torch.randn(3, 16, 7)
    predicted = policy.predict_action(obs, noise=noise, guidance=guidance)["action_pred"]
    torch.testing.assert_close(policy.normalizer.action.normalize(predicted), target)
    assert [step.plan.timestep for step, _ in seen] == [80, 60, 40, 20, 0]
    assert [step.plan.index for step, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][0].x_t, noise)
    levels = policy.diffusion.alphas_cumprod
    for step, x0_hat in seen:
        assert step.plan.alpha_cumprod == levels[step.plan.timestep].item()
        assert x0_hat.abs().max() <= 1
        assert step.obs is obs
    assert seen[-1][0].plan.alpha_cumprod_previous == 1


def test_guidance_may_look_through_the_network_with_gradients(policy, obs):
    checked = []

    def guidance(x0_hat, step):
        again = step.denoise(step.x_t).clamp(-1, 1)
        assert torch.equal(again, x0_hat)
        assert not again.requires_grad
        with torch.enable_grad():
            x_t = step.x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(step.denoise(x_t).square().sum(), x_t)
        checked.append(gradient.abs().sum().item())
        return x0_hat

    policy.predict_action(obs, guidance=guidance)
    assert len(checked) == 5
    assert min(checked) > 0


def test_guidance_of_many_samples_sees_them_as_one_batch(policy, obs):
    def guidance(x0_hat, step):
        assert x0_hat.shape == (12, 16, 7)
        assert step.samples_per_observation == 4
        assert len(step.obs["agent_pos"]) == 3
        return x0_hat

    actions = policy.predict_action(obs, guidance=guidance, samples_per_observation=4)["action"]
    assert actions.shape == (12, 8, 7)


def test_action_units_and_normalised_ones_are_inverse(policy, obs):
    def guidance(x0_hat, step):
        torch.testing.assert_close(step.normalize(step.unnormalize(x0_hat)), x0_hat)
        return x0_hat

    policy.predict_action(obs, guidance=guidance)
