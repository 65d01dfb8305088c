"""Keys and defaults of the commands' configuration, and errors that help."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]


def settings(*overrides):
    return TrainingConfig.from_dict(compose("train", overrides)["training"])


def test_full_training_has_the_guides_defaults(monkeypatch):
    monkeypatch.setenv("CALVIN_ZARR_PATH", "data/calvin_training.zarr")
    config = settings()
    assert config == settings("training=dp3_calvin")
    assert (config.num_epochs, config.batch_size, config.gradient_accumulation_steps) == (
        3000,
        128,
        1,
    )
    assert (config.checkpoint_every, config.top_k, config.val_every) == (50, 3, 10)
    assert (config.learning_rate, config.warmup_steps, config.betas) == (1e-4, 500, (0.95, 0.999))
    assert config.use_ema
    assert config.wandb.enabled
    assert config.wandb.project == "langsteer_dp3"
    assert config.checkpoint_dir == "outputs/checkpoints"
    assert config.dataset.zarr_path == "data/calvin_training.zarr"
    assert config.dataset.max_train_episodes is None


def test_debug_training_has_the_guides_defaults():
    config = settings("training=dp3_debug")
    assert (config.num_epochs, config.batch_size) == (10, 16)
    assert config.dataset.max_train_episodes == 100
    assert not config.wandb.enabled


@pytest.mark.parametrize(
    ("policy", "down_dims"), [("dp3", (512, 1024, 2048)), ("simple_dp3", (128, 256, 384))]
)
def test_policy_is_a_choice(policy, down_dims):
    values = compose("train", [f"policy={policy}"])["policy"]
    assert DP3Config.from_dict(values).down_dims == down_dims


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("training.batchsize=4", "did you mean training.batch_size?"),
        ("training.dataset.max_episodes=4", "did you mean training.dataset.max_train_episodes?"),
        ("batch_size=4", "did you mean training.batch_size?"),
        ("training.wandb.enable=true", "did you mean training.wandb.enabled?"),
        ("policy.horizn=16", "did you mean policy.horizon?"),
        ("training=dp3_calvn", "did you mean dp3_calvin?"),
        ("policy=simple_dp", "did you mean simple_dp3?"),
        ("--resume", "expected key=value"),
    ],
)
def test_unknown_key_is_an_error_that_suggests_the_nearest(override, hint):
    with pytest.raises(UserError, match=hint.replace("?", r"\?")):
        compose("train", [override])


@pytest.mark.parametrize(
    "override",
    [
        "training.batch_size=0",
        "training.batch_size=many",
        "training.num_epochs=0",
        "training.learning_rate=0",
        "training.dataset.val_ratio=1.5",
        "training.dataset.tail=none",
        "training.precision=fp8",
        "training.resume=maybe",
        "training.resume=[]",
        "training.experiment_name=a/b",
        "training.betas=[0.9]",
    ],
)
def test_value_out_of_bounds_is_an_error_that_names_the_key(override):
    with pytest.raises(UserError, match=override.split("=")[0].replace(".", r"\.")):
        settings(override)


@pytest.mark.parametrize(
    ("script", "arguments", "lines"),
    [
        (
            "train_dp3.py",
            ["training=dp3_debug"],
            [
                "training.num_epochs=10",
                "training.batch_size=16 +per GPU",
                "dp3_debug +Fast iteration: few epochs, few episodes, no W&B (taken)",
                "simple_dp3 +Simple DP3",
            ],
        ),
        (
            "run_experiment.py",
            [],
            [
                "value_map +Gradient towards",
                "steering.samples=1 +trajectories drawn",
                "builtin +scene D",
                "open_drawer +“open the drawer”",
            ],
        ),
        ("evaluate_calvin.py", [], ["turn_off_led +“turn off the led”"]),
    ],
)
def test_help_lists_choices_and_keys_with_a_line_each(script, arguments, lines):
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments, "-h"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in lines:
        assert re.search(f"^  {line.replace('(', '.').replace(')', '.')}", done.stdout, re.M), line
