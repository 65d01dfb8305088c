"""A new run may begin with a trained policy's weights, and with nothing else of its training."""

import shutil

import torch

from langsteer.policies.export_command import exported
from langsteer.policies.exported import write_export

STANDING = ("training.learning_rate=1e-12", "training.num_epochs=1")


def begun(training, *overrides, status=0):
    """A run that hardly moves its weights."""
    shutil.rmtree(training.folder / "second", ignore_errors=True)
    return training.here("training.experiment_name=second", *STANDING, *overrides, status=status)


def test_a_run_begins_with_the_averaged_weights_and_the_normaliser(
    training, store_factory, tmp_path
):
    training.here("training.experiment_name=first")
    first = training.latest("first")
    checkpoint = training.folder / "first" / "latest.ckpt"
    write_export(tmp_path / "exported", exported([checkpoint], execute=4))
    training.store = store_factory(tmp_path / "other.zarr", [40, 20], ["training"] * 2, seed=5)
    for source in (checkpoint, tmp_path / "exported"):
        begun(training, f"training.init_from={source}")
        second = training.latest("second")
        assert second["progress"]["epoch"] == 1
        for part in ("model", "ema"):
            for name, value in first["ema"].items():
                torch.testing.assert_close(second[part][name], value, rtol=0, atol=1e-5)


def test_a_policy_of_another_size_or_other_clouds_is_refused(training, store_factory, tmp_path):
    training.here("training.experiment_name=first", *STANDING)
    source = f"training.init_from={training.folder / 'first' / 'latest.ckpt'}"
    printed = begun(training, source, "policy.horizon=24", status=2)
    assert "built otherwise" in printed and "horizon: 16 there, 24 now" in printed
    printed = begun(training, "training.init_from=nowhere.ckpt", status=2)
    assert "nowhere.ckpt: no such checkpoint" in printed
