"""What the policy promises whatever its weights."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer

SMALL = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16), num_inference_steps=4)
CONF = Path(__file__).resolve().parents[2] / "conf" / "policy"


def policy_of(config=SMALL, seed=0, **kwargs):
    torch.manual_seed(seed)
    policy = DP3(config, **kwargs)
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(60, 15)).clip(-2.5, 2.5)
    states[:, 3] = (math.pi + generator.uniform(-0.5, 0.5, 60) + math.pi) % (2 * math.pi) - math.pi
    policy.set_normalizer(Normalizer.fit(config, states, generator.uniform(-1, 1, (60, 7))))
    return policy


def obs_of(batch=3, points=24, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "point_cloud": torch.randn(batch, 2, points, width, generator=generator),
        "agent_pos": torch.randn(batch, 2, 15, generator=generator),
    }


def batch_of(batch=3, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed + 1)
    action = torch.rand(batch, 16, 7, generator=generator) * 2 - 1
    return {"obs": obs_of(batch, seed=seed, **kwargs), "action": action}


@pytest.mark.parametrize(
    ("name", "total", "unet"),
    [("dp3", 255_149_447, 255_085_191), ("simple_dp3", 7_442_183, 7_377_927)],
)
def test_the_named_policies_have_the_references_parameters(name, total, unet):
    values = yaml.safe_load((CONF / "dp3.yaml").read_text())
    values |= yaml.safe_load((CONF / f"{name}.yaml").read_text())
    values.pop("defaults", None)
    with torch.device("meta"):
        policy = DP3(DP3Config.from_dict(values))
    assert sum(parameter.numel() for parameter in policy.parameters()) == total
    assert sum(parameter.numel() for parameter in policy.model.parameters()) == unet


def test_the_dp3_config_file_is_the_default_and_names_every_key():
    values = yaml.safe_load((CONF / "dp3.yaml").read_text())
    assert DP3Config.from_dict(values) == DP3Config()
    assert set(values) == {field.name for field in dataclasses.fields(DP3Config)}


def test_a_config_survives_plain_values():
    assert DP3Config.from_dict(SMALL.to_dict()) == SMALL
    assert yaml.safe_load(yaml.safe_dump(SMALL.to_dict())) == SMALL.to_dict()


def test_an_unknown_key_is_an_error_that_suggests_the_nearest():
    with pytest.raises(UserError, match=r"policy\.horizn.*policy\.horizon"):
        DP3Config.from_dict({"horizn": 16})


@pytest.mark.parametrize(
    "values",
    [
        {"prediction": "epsilon"},
        {"agent_pos": "joints"},
        {"horizon": 10},
        {"down_dims": [30, 60, 120]},
        {"kernel_size": 4},
        {"n_action_steps": 16},
        {"num_inference_steps": 200},
        {"noise_draws": 0},
        {"horizon": "16"},
        {"horizon": True},
        {"point_widths": []},
        {"down_dims": 64},
        {"down_dims": ["a", "b"]},
        {"sigma_data": "x"},
        {"language_guidance": float("nan")},
        {"use_pc_color": "no"},
        {"prediction": 1},
    ],
)
def test_choices_that_cannot_work_are_named(values):
    with pytest.raises(UserError, match=f"policy.{next(iter(values))}="):
        DP3Config.from_dict(values)


@pytest.mark.parametrize("prediction", ["sample", "v", "preconditioned"])
@pytest.mark.parametrize("features", ["full", "tcp"])
def test_adding_turns_to_a_stored_angle_changes_no_action(features, prediction):
    policy = policy_of(dataclasses.replace(SMALL, agent_pos=features, prediction=prediction))
    obs, noise = obs_of(), torch.randn(3, 16, 7)
    expected = policy.predict_action(obs, noise=noise)["action"]
    for dim in (3, 4, 5, 7, 13):
        turned = obs["agent_pos"].clone()
        turned[..., dim] += 2 * math.pi * torch.tensor([[-1], [1], [2]])
        actions = policy.predict_action(obs | {"agent_pos": turned}, noise=noise)["action"]
        torch.testing.assert_close(actions, expected, atol=2e-5, rtol=0)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_order_of_points_changes_no_feature(seed):
    policy, obs = policy_of(), obs_of(seed=seed)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    shuffled = obs | {"point_cloud": obs["point_cloud"][:, :, order]}
    torch.testing.assert_close(policy.encode(shuffled), policy.encode(obs), atol=1e-6, rtol=0)


def test_a_cloud_that_the_policy_was_not_trained_on_is_an_error():
    policy = policy_of(pipeline={"n_points": 24})
    policy.predict_action(obs_of(points=24))
    for wrong in (obs_of(points=20), obs_of(width=6)):
        with pytest.raises(UserError, match="point_cloud of shape"):
            policy.predict_action(wrong)
        with pytest.raises(UserError, match="point_cloud of shape"):
            policy({"obs": wrong, "action": torch.zeros(3, 16, 7)})
    obs = obs_of()
    with pytest.raises(UserError, match="agent_pos of shape"):
        policy.predict_action(obs | {"agent_pos": obs["agent_pos"][..., :10]})
    with pytest.raises(UserError, match="point_cloud of shape"):
        policy.predict_action({key: value[:, :1] for key, value in obs.items()})


def test_clouds_of_another_pipeline_are_refused():
    trained = ObservationPipeline()
    policy = policy_of(pipeline=trained.to_dict())
    policy.check_pipeline(ObservationPipeline())
    wider = dataclasses.replace(trained, box=((-0.5, 0.6), (-0.55, 0.25), (0.28, 0.85)))
    with pytest.raises(UserError, match="box"):
        policy.check_pipeline(wider)
    with pytest.raises(UserError, match="does not know"):
        policy_of().check_pipeline(trained)


def test_a_policy_without_a_normaliser_moves_no_robot():
    with pytest.raises(UserError, match="normalizer"):
        DP3(SMALL).predict_action(obs_of())


def test_colours_are_seen_by_a_coloured_policy():
    policy = policy_of(dataclasses.replace(SMALL, use_pc_color=True))
    obs = obs_of(width=6)
    recoloured = obs["point_cloud"].clone()
    recoloured[..., 3:] += 0.5
    assert not torch.equal(policy.encode(obs), policy.encode(obs | {"point_cloud": recoloured}))
    policy(batch_of(width=6)).backward()
    assert policy.obs_encoder.extractor.mlp[-1].weight.grad.abs().sum() > 0


def test_actions_never_leave_the_range_of_training():
    policy = policy_of()
    predicted = policy.predict_action(obs_of(batch=8))["action_pred"]
    assert policy.normalizer.action.normalize(predicted).abs().max() <= 1 + 1e-5


def test_executed_actions_start_at_the_present_step():
    predicted = policy_of().predict_action(obs_of())
    assert torch.equal(predicted["action"], predicted["action_pred"][:, 1:9])


def test_prediction_is_a_function_of_the_generators_seed():
    policy, obs = policy_of(), obs_of()
    one, same, other = (
        policy.predict_action(obs, generator=torch.Generator().manual_seed(seed))["action"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_loss_is_a_function_of_the_generators_seed():
    policy, batch = policy_of(), batch_of()
    one, same, other = (
        policy.compute_loss(batch, generator=torch.Generator().manual_seed(seed)).item()
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_calling_the_policy_is_its_loss():
    policy, batch = policy_of(), batch_of()
    fixed = {"noise": torch.randn(3, 16, 7), "timesteps": torch.tensor([0, 40, 99])}
    assert torch.equal(policy(batch, **fixed), policy.compute_loss(batch, **fixed))
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(policy(batch, generator=one), policy.compute_loss(batch, generator=other))


def test_many_samples_of_an_observation_are_those_of_repeated_observations():
    policy, obs, noise = policy_of(), obs_of(), torch.randn(15, 16, 7)
    together = policy.predict_action(obs, noise=noise, samples_per_observation=5)["action"]
    repeated = {key: value.repeat_interleave(5, 0) for key, value in obs.items()}
    torch.testing.assert_close(
        together, policy.predict_action(repeated, noise=noise)["action"], atol=1e-5, rtol=0
    )
    with pytest.raises(ValueError, match="noise of shape"):
        policy.predict_action(obs, noise=noise)


def test_many_noise_draws_of_an_observation_are_those_of_repeated_observations():
    config = dataclasses.replace(SMALL, noise_draws=4)
    batch, noise = batch_of(), torch.randn(12, 16, 7)
    timesteps = torch.randint(100, (12,))
    repeated = {
        "obs": {key: value.repeat_interleave(4, 0) for key, value in batch["obs"].items()},
        "action": batch["action"].repeat_interleave(4, 0),
    }
    losses, gradients = [], []
    for draws_config, given_batch in ((config, batch), (SMALL, repeated)):
        policy = policy_of(draws_config)
        loss = policy.compute_loss(given_batch, noise=noise, timesteps=timesteps)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(policy.obs_encoder.extractor.mlp[0].weight.grad)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    drawn = policy_of(config).compute_loss(batch)
    assert drawn.isfinite()


@pytest.mark.parametrize("prediction", ["sample", "v", "preconditioned"])
def test_every_weight_is_trained(prediction):
    policy = policy_of(dataclasses.replace(SMALL, prediction=prediction))
    policy(batch_of()).backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("prediction", "loss_left"), [("sample", 0.01), ("v", 0.7), ("preconditioned", 0.7)]
)
def test_a_policy_learns_a_trajectory(prediction, loss_left):
    # The latter two must pass the noise through as well, which takes a small network long.
    policy = policy_of(dataclasses.replace(SMALL, prediction=prediction, noise_draws=4))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    batch = batch_of(batch=2)
    batch["action"] = torch.linspace(-0.8, 0.8, 16)[None, :, None].expand(2, 16, 7).clone()
    batch["action"][1] *= -1  # the observation says which way
    losses = []
    for step in range(150):
        optimizer.zero_grad()
        loss = policy.compute_loss(batch, generator=torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < loss_left * losses[0]
    if prediction == "sample":
        predicted = policy.predict_action(batch["obs"])["action_pred"]
        assert (predicted - batch["action"]).abs().mean() < 0.1


def test_modules_never_change_between_training_and_evaluation():
    policy, obs, noise = policy_of(), obs_of(), torch.randn(3, 16, 7)
    trained = policy.train().predict_action(obs, noise=noise)["action"]
    assert torch.equal(trained, policy.eval().predict_action(obs, noise=noise)["action"])
