"""An export holds what inference needs of one checkpoint, or the mean of several."""

import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.export_command import exported
from langsteer.policies.exported import write_export
from langsteer.policies.loading import load_policy


def trained(training, name, *overrides):
    """The checkpoint of a short run."""
    training.here(f"training.experiment_name={name}", "training.num_epochs=1", *overrides)
    return training.folder / name / "latest.ckpt"


def test_an_export_may_execute_fewer_actions_of_a_prediction(training, tmp_path):
    checkpoint = trained(training, "first")
    write_export(tmp_path / "exported", exported([checkpoint], execute=3))
    whole, short = load_policy(checkpoint), load_policy(tmp_path / "exported")
    obs = {"point_cloud": torch.zeros(1, 2, 32, 3), "agent_pos": torch.zeros(1, 2, 15)}
    noise = torch.randn(1, 16, 7)
    actions = whole.predict_action(obs, noise=noise)["action"]
    assert torch.equal(short.predict_action(obs, noise=noise)["action"], actions[:, :3])
    with pytest.raises(UserError, match="n_action_steps"):
        exported([checkpoint], execute=40)


def test_several_checkpoints_become_the_mean_of_their_weights(training):
    first = trained(training, "first")
    second = trained(training, "second", f"training.init_from={first}")
    mean = exported([first, second])
    halves = [training.latest(name)["ema"] for name in ("first", "second")]
    assert mean.origin["mean_of"] == ["first", "second"]
    for name, value in mean.weights.items():
        torch.testing.assert_close(value, (halves[0][name] + halves[1][name]) / 2, msg=name)
    moved = [name for name in mean.weights if not halves[0][name].equal(halves[1][name])]
    assert moved and not any(name.startswith("normalizer.") for name in moved)


def test_checkpoints_of_different_policies_have_no_mean(training, store_factory, tmp_path):
    first = trained(training, "first")
    wider = trained(training, "wider", "policy.down_dims=[32,48]")
    other_target = trained(training, "other_target", "policy.prediction=v")
    training.store = store_factory(tmp_path / "other.zarr", [40, 20], ["training"] * 2, seed=5)
    elsewhere = trained(training, "elsewhere")
    for other in (wider, other_target, elsewhere):
        with pytest.raises(UserError, match=f"{other.parent.name}.*is not that of"):
            exported([first, other])
