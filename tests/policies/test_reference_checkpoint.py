"""A reference checkpoint's weights arrive, and nothing else of the file does."""

import pickle
import sys
import types

import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.dp3.reference import (
    load_reference_checkpoint,
    load_reference_state_dict,
    read_reference_checkpoint,
)

CONFIG = DP3Config(down_dims=(16, 32), n_groups=4, blocks_per_stage=1, point_widths=(8, 16))


def reference_state_dict(seed, cloud_channels=1):
    """A state dict as the reference names it."""
    torch.manual_seed(seed)
    weights = {}
    for name, value in DP3(CONFIG).state_dict().items():
        if not name.startswith("normalizer."):
            weights[name] = torch.randn_like(value)
    weights["_dummy_variable"] = torch.zeros(0)
    weights["mask_generator._dummy_variable"] = torch.zeros(0)
    for kind, dim in (("action", 7), ("agent_pos", 15), ("point_cloud", cloud_channels)):
        for parameter in ("scale", "offset", "input_stats.min", "input_stats.max"):
            weights[f"normalizer.params_dict.{kind}.{parameter}"] = 1 + torch.rand(dim)
    return weights


@pytest.fixture
def foreign(monkeypatch):
    """A class of a package that is not installed where the checkpoint is opened."""
    module = types.ModuleType("diffusion_policy_3d_test_double")

    class Settings:
        def __init__(self, value):
            self.value = value

        def __reduce__(self):
            return (Settings, (self.value,), {"value": self.value})

    Settings.__module__, Settings.__qualname__ = module.__name__, "Settings"
    monkeypatch.setattr(module, "Settings", Settings, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield Settings


def test_weights_are_read_from_a_checkpoint_that_names_foreign_classes(
    tmp_path, foreign, monkeypatch
):
    model, ema = reference_state_dict(0), reference_state_dict(1)
    path = tmp_path / "latest.ckpt"
    payload = {
        "cfg": foreign({"horizon": 16}),
        "state_dicts": {"model": model, "ema_model": ema, "optimizer": {"state": {0: foreign(1)}}},
        "pickles": {"epoch": pickle.dumps(3)},
    }
    torch.save(payload, path)
    monkeypatch.delitem(sys.modules, foreign.__module__)
    for use_ema, weights in ((True, ema), (False, model)):
        policy = load_reference_checkpoint(path, CONFIG, use_ema=use_ema)
        loaded = policy.state_dict()
        for name, value in weights.items():
            if not name.startswith("normalizer.") and value.numel():
                assert torch.equal(loaded[name], value), name
        scale = weights["normalizer.params_dict.agent_pos.scale"]
        assert torch.equal(policy.normalizer.agent_pos.scale, scale)
        assert policy.normalizer.fitted


def test_views_and_parameters_are_rebuilt(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    path = tmp_path / "views.ckpt"
    tensors = {"t": base.T, "row": base[1], "same": base, "p": torch.nn.Parameter(base)}
    torch.save(tensors | {"half": base.half(), "flags": base > 3}, path)
    read = read_reference_checkpoint(path)
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
    assert torch.equal(read["half"], base.half())
    assert torch.equal(read["flags"], base > 3)


def test_opening_a_reference_checkpoint_runs_nothing_of_it(tmp_path):
    touched = tmp_path / "touched"

    class Hostile:
        def __reduce__(self):
            return (touched.touch, ())

    class HostileCall:
        def __reduce__(self):
            return (eval, (f"open({str(touched)!r}, 'w')",))

    path = tmp_path / "hostile.ckpt"
    torch.save({"state_dicts": {"model": {}}, "a": Hostile(), "b": HostileCall()}, path)
    assert set(read_reference_checkpoint(path)) == {"state_dicts", "a", "b"}
    assert not touched.exists()


def test_a_six_channel_cloud_normaliser_gives_its_first_three():
    weights = reference_state_dict(0, cloud_channels=6)
    policy = load_reference_state_dict(DP3(CONFIG), weights, "here")
    scale = weights["normalizer.params_dict.point_cloud.scale"]
    assert torch.equal(policy.normalizer.point_cloud.scale, scale[:3])


@pytest.mark.parametrize("spoil", ["missing", "unknown"])
def test_a_state_dict_loads_whole_or_not_at_all(spoil):
    weights = reference_state_dict(0)
    if spoil == "missing":
        weights.popitem()
        weights.pop("model.final_conv.1.bias")
    else:
        weights["model.extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"latest\.ckpt[^$]*model\."):
        load_reference_state_dict(DP3(CONFIG), weights, "latest.ckpt")


def test_files_that_are_no_checkpoints_are_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_reference_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(UserError, match=r"text\.ckpt"):
        read_reference_checkpoint(tmp_path / "text.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="list"):
        read_reference_checkpoint(tmp_path / "list.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="state_dicts"):
        load_reference_checkpoint(tmp_path / "other.ckpt", CONFIG)


def test_a_truncated_checkpoint_is_an_error_of_the_user(tmp_path):
    path = tmp_path / "cut.ckpt"
    torch.save({"state_dicts": {"model": reference_state_dict(0)}}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.ckpt"):
        read_reference_checkpoint(path)


def test_the_normaliser_type_is_exported():
    assert Normalizer(CONFIG).fitted is False
