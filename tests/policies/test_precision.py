"""Each precision is one everywhere; what it rounds is the denoiser's products and nothing else."""

from typing import Any

import numpy as np
import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.loading import load_policy
from langsteer.policies.precision import Precision

CONFIG = DP3Config(down_dims=(32, 64), point_widths=(16, 32), encoder_output_dim=16)
CPU = torch.device("cpu")


@pytest.fixture
def policy() -> DP3:
    torch.manual_seed(0)
    made = DP3(CONFIG)
    random = np.random.default_rng(0)
    limits = Normalizer.fit(CONFIG, random.normal(size=(50, 15)), random.uniform(-1, 1, (50, 7)))
    made.set_normalizer(limits)
    return made


@pytest.fixture
def batch() -> dict[str, Any]:
    torch.manual_seed(1)
    obs = {"point_cloud": torch.rand(6, 2, 64, 3) - 0.5, "agent_pos": torch.rand(6, 2, 15)}
    return {"obs": obs, "action": torch.rand(6, 16, 7) * 2 - 1}


def gradients(policy: DP3, batch: dict[str, Any], precision: str) -> dict[str, torch.Tensor]:
    policy.precision = Precision(precision)
    policy.zero_grad()
    generator = torch.Generator().manual_seed(2)
    policy(batch, generator=generator).backward()
    found = {}
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        found[name] = weight.grad
    return found


def test_every_weight_gets_a_gradient_in_bf16_that_points_as_in_fp32(policy, batch):
    """PyTorch before 2.13 left the encoder's points layers without one (its issue 112583)."""
    exact, rounded = gradients(policy, batch, "fp32"), gradients(policy, batch, "bf16")
    for name, gradient in rounded.items():
        assert gradient.isfinite().all() and gradient.any(), name
        likeness = torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0)
        assert likeness > 0.98, (name, likeness)


def test_encoder_stays_out_of_bf16(policy, batch):
    seen: dict[str, Any] = {}
    policy.obs_encoder.register_forward_hook(
        lambda module, given, out: seen.update(features=out[0])
    )
    policy.model.down_modules[0][0].register_forward_hook(
        lambda module, given, out: seen.update(within=out.dtype)
    )
    policy.precision = Precision("fp32")
    policy(batch)
    exact = seen["features"]
    policy.precision = Precision("bf16")
    policy(batch)
    assert torch.equal(seen["features"], exact)
    hooked = policy.model.mid_modules[0].blocks[0].block[0]
    hooked.register_forward_hook(lambda module, given, out: seen.update(product=out.dtype))
    policy(batch)
    assert seen["product"] == torch.bfloat16


def test_loss_and_trajectories_are_float32_in_bf16(policy, batch):
    policy.precision = Precision("bf16")
    assert policy(batch).dtype == torch.float32
    assert policy.predict_action(batch["obs"])["action"].dtype == torch.float32


def test_weights_rounded_once_predict_as_weights_rounded_at_each_call(policy, batch):
    policy.requires_grad_(False).precision = Precision("bf16")
    noise = torch.randn(6, 16, 7)
    at_each_call = policy.predict_action(batch["obs"], noise=noise)["action_pred"]
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    with policy.precision.weights_cast(policy.model):
        assert policy.model.final_conv[1].weight.dtype == torch.bfloat16
        once = policy.predict_action(batch["obs"], noise=noise)["action_pred"]
    assert torch.equal(once, at_each_call)
    for name, weight in policy.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_no_weight_is_rounded_again_while_a_loaded_policy_samples(policy, batch):
    policy.requires_grad_(False).precision = Precision("bf16")
    policy.precision.cast_weights(policy.model)
    weights = {weight.data_ptr() for weight in policy.parameters()}

    class Casts(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "_to_copy" in str(func):
                assert args[0].data_ptr() not in weights, "a weight was cast"
            return func(*args, **(kwargs or {}))

    with Casts():
        policy.predict_action(batch["obs"])


@pytest.mark.parametrize(("name", "tf32"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_float32_products_of_a_gpu_are_strict_in_fp32_alone(name, tf32):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with Precision(name).products(torch.device("cuda")):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_policy_predicts_in_its_own_precision(policy, batch, monkeypatch):
    entered = []
    real = Precision.products

    def noted(self, device):
        entered.append(self.name)
        return real(self, device)

    monkeypatch.setattr(Precision, "products", noted)
    policy.precision = Precision("tf32")
    policy.predict_action(batch["obs"])
    assert entered == ["tf32"]


@pytest.mark.parametrize(("capability", "named"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_only_gpus_that_compute_in_bf16_are_given_it(monkeypatch, capability, named):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert Precision.choose("auto", torch.device("cuda", 0)).name == named


def test_cpu_computes_in_fp32_unless_asked():
    assert Precision.choose("auto", CPU).name == "fp32"
    assert Precision.choose("bf16", CPU).name == "bf16"


def test_unknown_precision_is_an_error(tmp_path):
    with pytest.raises(UserError, match="precision=fp8: expected one of auto, fp32, tf32, bf16"):
        load_policy(tmp_path / "x.ckpt", precision="fp8")
