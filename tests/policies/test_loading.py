"""A checkpoint gives back the policy that was trained, whole."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.loading import load_policy

BIAS = "model.final_conv.1.bias"
CONFIG = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))


@pytest.fixture
def policy():
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    policy = DP3(CONFIG, ObservationPipeline(n_points=20).to_dict())
    robot_obs, actions = generator.normal(size=(50, 15)), generator.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(CONFIG, robot_obs, actions))
    return policy


def checkpoint_of(policy, **changes):
    averaged = {
        name: value * 1.5 if name.startswith("model.") else value
        for name, value in policy.state_dict().items()
    }
    return {
        "format": "langsteer-checkpoint",
        "version": 1,
        "config": {"policy": policy.config.to_dict(), "training": {"batch_size": 2}},
        "pipeline": policy.pipeline,
        "model": policy.state_dict(),
        "ema": averaged,
    } | changes


def test_a_loaded_policy_predicts_what_the_trained_one_did(policy, tmp_path):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy), path)
    obs = {"point_cloud": torch.randn(2, 2, 20, 3), "agent_pos": torch.randn(2, 2, 15)}
    noise = torch.randn(2, 16, 7)
    loaded = load_policy(path, use_ema=False)
    expected = policy.predict_action(obs, noise=noise)["action_pred"]
    actions = loaded.predict_action(obs, noise=noise)["action_pred"]
    # To rounding: kernels differ for weights that ask for no gradient.
    torch.testing.assert_close(actions, expected, atol=1e-5, rtol=0)
    assert loaded.pipeline == policy.pipeline
    assert loaded.config == policy.config
    assert not loaded.training
    averaged = load_policy(path)
    assert torch.equal(averaged.get_parameter(BIAS), 1.5 * policy.get_parameter(BIAS))


@pytest.mark.parametrize(("precision", "kept"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_a_loaded_policy_computes_as_asked_and_its_weights_are_rounded_once(
    policy, tmp_path, precision, kept
):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy), path)
    loaded = load_policy(path, precision=precision)
    assert loaded.precision.name == precision
    assert loaded.get_parameter(BIAS).dtype == getattr(torch, kept)
    assert loaded.obs_encoder.extractor.mlp[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"point_cloud": np.zeros((20, 3))}, "no 'robot_obs'; it has point_cloud"),
        ({"robot_obs": np.zeros(15), "point_cloud": np.zeros(20)}, r"\(20,\): expected \(P, 3"),
        ({"robot_obs": np.zeros(7), "point_cloud": np.zeros((20, 3))}, r"robot_obs \(7,\)"),
        ({"robot_obs": np.zeros(15), "point_cloud": np.zeros((19, 3))}, r"before had \(20, 3\)"),
    ],
)
def test_an_agent_names_what_is_wrong_with_a_frame(policy, observation, message):
    agent = Agent(policy)
    agent.observe({"robot_obs": np.zeros(15), "point_cloud": np.zeros((20, 3))})
    with pytest.raises(UserError, match=message):
        agent.act(observation)


def test_a_loaded_policy_outlives_its_file(policy, tmp_path):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy), path)
    loaded = load_policy(path)
    path.write_bytes(b"")
    assert all(bool(value.isfinite().all()) for value in loaded.state_dict().values())


def test_a_run_without_averaging_has_its_last_weights(policy, tmp_path):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy, ema=None), path)
    loaded = load_policy(path)
    assert torch.equal(loaded.get_parameter(BIAS), policy.get_parameter(BIAS))


def test_weights_never_load_in_part(policy, tmp_path):
    path = tmp_path / "latest.ckpt"
    payload = checkpoint_of(policy)
    payload["ema"].pop("normalizer.action.scale")
    torch.save(payload, path)
    with pytest.raises(UserError, match="do not fit"):
        load_policy(path)


def _with(tensor, index, value):
    changed = tensor.clone()
    changed.view(-1)[index] = value
    return changed


DAMAGES = {
    "is missing": lambda weights, name: weights.pop(name),
    "has shape": lambda weights, name: weights.update({name: weights[name][:-1]}),
    "of torch.float64": lambda weights, name: weights.update({name: weights[name].double()}),
    "not finite": lambda weights, name: weights.update({name: _with(weights[name], 3, torch.inf)}),
    "are not finite": lambda weights, name: weights[name].fill_(torch.nan),
    "dense tensor": lambda weights, name: weights.update({name: [1.0]}),
    "1000000000000": lambda weights, name: weights.update({name: torch.zeros(1).expand(10**12)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.final_conv.1.weight", "normalizer.agent_pos.scale"])
def test_a_damaged_tensor_is_named(policy, tmp_path, damage, name):
    path = tmp_path / "latest.ckpt"
    payload = checkpoint_of(policy)
    DAMAGES[damage](payload["ema"], name)
    torch.save(payload, path)
    with pytest.raises(UserError, match=f"{name}.*{damage}"):
        load_policy(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("config", 3, "config=3"),
        ("config", {"policy": []}, r"config\.policy"),
        ("pipeline", "x", "pipeline='x'"),
        ("pipeline", {"n_points": 20}, "observation pipeline: missing"),
        ("model", None, "model=None"),
        ("ema", [1], "ema="),
        ("version", [1], r"version \[1\]"),
        ("config", {"policy": {"blocks_per_stage": 10**22}}, "blocks_per_stage=1000.*1 to 16"),
        ("config", {"policy": {"num_train_timesteps": 2**63}}, "num_train_timesteps=.*to 100000"),
    ],
)
def test_a_damaged_part_of_a_checkpoint_is_named(policy, tmp_path, key, value, message):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy, **{key: value}), path)
    with pytest.raises(UserError, match=message) as found:
        load_policy(path)
    assert str(path) in str(found.value)


def test_a_policy_without_a_fitted_normaliser_does_not_load(tmp_path):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(DP3(CONFIG)), path)
    with pytest.raises(UserError, match="normalizer"):
        load_policy(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"format": "other"}, "format 'other'"), ({"version": 2}, "version 2")],
)
def test_foreign_checkpoints_are_named(policy, tmp_path, changes, said):
    path = tmp_path / "latest.ckpt"
    torch.save(checkpoint_of(policy, **changes), path)
    with pytest.raises(UserError, match=said):
        load_policy(path)


def test_a_missing_or_damaged_checkpoint_is_named(policy, tmp_path):
    path = tmp_path / "latest.ckpt"
    with pytest.raises(UserError, match="no such checkpoint"):
        load_policy(path)
    torch.save(checkpoint_of(policy), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_policy(path)


def test_a_missing_checkpoint_is_answered_with_those_that_are_there(policy, tmp_path):
    (tmp_path / "dp3_calvin_20260214").mkdir()
    torch.save(checkpoint_of(policy), tmp_path / "dp3_calvin_20260214" / "latest.ckpt")
    with pytest.raises(UserError, match=r"found in .*: dp3_calvin_20260214/latest\.ckpt$"):
        load_policy(tmp_path / "dp3_calvin_20260213" / "latest.ckpt")
    with pytest.raises(UserError, match=r"best training\.top_k.*20260214: latest\.ckpt$"):
        load_policy(tmp_path / "dp3_calvin_20260214" / "epoch_0100.ckpt")


def test_a_checkpoint_with_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (eval, ("1",))

    path = tmp_path / "hostile.ckpt"
    torch.save({"format": "langsteer-checkpoint", "x": Hostile()}, path)
    with pytest.raises(UserError, match="not a checkpoint"):
        load_policy(path)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, langsteer; assert 'torch' not in sys.modules; langsteer.load_policy"
    subprocess.run([sys.executable, "-c", code], check=True)
