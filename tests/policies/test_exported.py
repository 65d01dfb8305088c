"""An exported policy is the checkpoint's, in a folder that can be shared and checked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.exported import (
    DESCRIPTION,
    WEIGHTS,
    ExportedPolicy,
    read_export,
    write_export,
)
from langsteer.policies.loading import checkpoint_identity, load_policy

CONFIG = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16), num_inference_steps=4)


@pytest.fixture(scope="module")
def policy() -> DP3:
    torch.manual_seed(0)
    policy = DP3(CONFIG, ObservationPipeline(n_points=24).to_dict())
    generator = np.random.default_rng(0)
    states, actions = generator.normal(size=(50, 15)), generator.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(CONFIG, states, actions))
    return policy.eval()


@pytest.fixture
def exported(policy: DP3, tmp_path: Path) -> Path:
    write_export(tmp_path / "policy", export_of(policy))
    return tmp_path / "policy"


def export_of(policy: DP3) -> ExportedPolicy:
    weights = dict(policy.state_dict())
    return ExportedPolicy(CONFIG.to_dict(), policy.pipeline, weights, {"experiment": "tiny"})


def actions_of(policy: DP3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    obs = {
        "point_cloud": torch.randn(2, 2, 24, 3, generator=generator),
        "agent_pos": torch.randn(2, 2, 15, generator=generator),
    }
    return policy.predict_action(obs, noise=torch.randn(2, 16, 7, generator=generator))["action"]


def test_an_export_predicts_what_its_policy_does(policy, exported):
    torch.testing.assert_close(
        actions_of(load_policy(exported)), actions_of(policy), rtol=0, atol=0
    )
    assert read_export(exported).origin["experiment"] == "tiny"
    assert set(checkpoint_identity(exported)) == {"path", "bytes", "sha256"}


def test_half_precision_halves_the_size_and_keeps_the_normaliser(policy, exported, tmp_path):
    write_export(tmp_path / "half", export_of(policy), half=True)
    half = load_policy(tmp_path / "half")
    torch.testing.assert_close(half.normalizer.action.scale, policy.normalizer.action.scale)
    torch.testing.assert_close(actions_of(half), actions_of(policy), rtol=0, atol=0.02)
    sizes = [(folder / WEIGHTS).stat().st_size for folder in (tmp_path / "half", exported)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("missing", [WEIGHTS, DESCRIPTION])
def test_a_missing_file_is_named(exported, missing):
    (exported / missing).unlink()
    with pytest.raises(UserError, match=rf"{missing}: missing"):
        load_policy(exported)


def test_files_of_two_exports_are_not_taken_together(exported):
    save_file({"stranger": torch.zeros(3)}, exported / WEIGHTS)
    with pytest.raises(UserError, match="another export"):
        load_policy(exported)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "pickle"}, "not the description"),
        ({"policy": None}, "no 'policy'"),
        ({"pipeline": 3}, "'pipeline' is no table"),
    ],
)
def test_a_foreign_description_is_refused(exported, change, message):
    content = json.loads((exported / DESCRIPTION).read_text()) | change
    (exported / DESCRIPTION).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_policy(exported)


def test_a_damaged_description_is_refused(exported):
    (exported / DESCRIPTION).write_text('{"format": ')
    with pytest.raises(UserError, match=r"policy.json: damaged"):
        load_policy(exported)


def test_a_folder_in_use_is_left_alone(policy, exported, tmp_path):
    with pytest.raises(UserError, match="--overwrite"):
        write_export(exported, export_of(policy))
    write_export(exported, export_of(policy), overwrite=True)
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    (other / DESCRIPTION).unlink()
    with pytest.raises(UserError, match="no export"):
        write_export(other, export_of(policy), overwrite=True)
