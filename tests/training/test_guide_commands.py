"""Each training command of the guide, in small."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from langsteer.configuration import compose
from langsteer.policies.loading import load_policy
from langsteer.training.config import RunConfig, TrainingConfig
from langsteer.training.dp3_trainer import train

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_dp3.py"
OVERRIDES = [
    "training=dp3_debug",
    "training=dp3_calvin",
    "training=dp3_calvin training.batch_size=64",
    "training=dp3_calvin training.num_epochs=1000",
    "training=dp3_calvin training.use_ema=false",
    "training=dp3_calvin training.batch_size=32 training.num_epochs=2000 "
    "training.learning_rate=5e-5",
    "training=dp3_calvin training.batch_size=32 training.gradient_accumulation_steps=4",
    "training=dp3_calvin training.num_workers=4",
    "training=dp3_calvin training.batch_size=256",
    "training=dp3_calvin training.val_every=20",
    "training=dp3_calvin training.batch_size=64 training.gradient_accumulation_steps=2",
    "training=dp3_calvin training.dataset.max_train_episodes=500",
    "training=dp3_calvin training.use_ema=true",
    "training=dp3_calvin training.learning_rate=5e-5",
    "training=dp3_calvin training.num_epochs=5000",
]


@pytest.fixture(scope="module")
def medium_store(tmp_path_factory, store_factory):
    """Twelve episodes of 40 frames: 363 windows for training."""
    path = tmp_path_factory.mktemp("store") / "medium.zarr"
    return store_factory(path, [40] * 12, ["training"] * 12)


def is_written(value, text):
    """Whether a boolean or a number is the one that a text means."""
    return str(value).lower() == text if isinstance(value, bool) else value == float(text)


@pytest.mark.parametrize("command", OVERRIDES)
def test_command_of_the_guide_trains(command, medium_store, tiny_overrides, training_on, tmp_path):
    """With a tiny policy, and two epochs instead of thousands; all else is the command's."""
    guide = command.split()
    asked = TrainingConfig.from_dict(compose("train", guide)["training"])
    for override in guide[1:]:
        key, value = override.split("=")
        found = asked.dataset if ".dataset." in key else asked
        assert is_written(getattr(found, key.split(".")[-1]), value)
    small = [item for item in tiny_overrides if item.startswith("policy")]
    small += ["training.device=cpu", "training.wandb.enabled=false"]
    training = training_on(medium_store, tmp_path)
    training.defaults = small
    output = training.here(*guide, "training.num_epochs=2", "training.experiment_name=my_run")
    batch = asked.batch_size * asked.gradient_accumulation_steps
    assert f"effective batch size {batch} " in output
    assert training.latest("my_run")["progress"]["epoch"] == 2
    load_policy(tmp_path / "my_run" / "latest.ckpt")


def test_resuming_as_the_guide_says(training, tiny_overrides):
    training.here()  # dp3_debug_<date>
    name = f"dp3_debug_{datetime.now():%Y%m%d}"
    output = training.here("training.resume=true", "training.num_epochs=4")
    assert f"{name}/latest.ckpt at epoch 3" in output
    path = training.folder / name / "epoch_0001.ckpt"
    assert not path.exists()  # three are kept, of four
    kept = sorted((training.folder / name).glob("epoch_*.ckpt"))[0]
    output = training.here(
        "training.resume=true",
        f"training.resume_checkpoint_path={kept}",
        "training.experiment_name=branch",
        "training.num_epochs=4",
    )
    assert f"resuming {kept}" in output
    assert training.latest("branch")["progress"]["epoch"] == 4


def test_files_lie_where_the_guide_says(training, tiny_overrides, tmp_path):
    command = [sys.executable, str(SCRIPT), *tiny_overrides]
    done = subprocess.run(
        command, cwd=tmp_path, env=training.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "checkpoints").iterdir()
    assert folder.name.startswith("dp3_debug_2")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"epoch_0001.ckpt", "latest.ckpt", "metrics.jsonl", "train.log", "curves.png"}


def test_debug_training_from_calvins_sample(sample_store, tmp_path, training_on, tiny_overrides):
    """CALVIN's own frames and 2048 points, the guide's configuration; the policy alone is tiny."""
    small = [item for item in tiny_overrides if item.startswith("policy")]
    training = training_on(sample_store, tmp_path)
    training.defaults = ["training=dp3_debug", *small, "training.device=cpu"]
    output = training.here("training.experiment_name=run", "training.num_epochs=2")
    assert "epoch 2/2" in output
    content = training.latest("run")
    assert content["pipeline"]["n_points"] == 2048
    assert content["metrics"].get("val_loss", 0.0) >= 0
    policy = load_policy(tmp_path / "run" / "latest.ckpt")
    assert policy.pipeline is not None
    assert policy.pipeline["n_points"] == 2048


@pytest.mark.slow
def test_debug_training_of_the_guide_as_it_is(sample_store, tmp_path):
    """The 255 M policy on a CPU: some minutes."""
    config = compose("train", ["training=dp3_debug", f"training.checkpoint_dir={tmp_path}"])
    config["training"]["dataset"]["zarr_path"] = str(sample_store)
    assert train(RunConfig.from_dict(config))
    assert list(tmp_path.glob("dp3_debug_*/latest.ckpt"))
