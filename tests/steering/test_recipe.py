"""The recipe of the base policy: its configurations compose and mean what docs/steering.md says."""

import pytest

from langsteer.configuration import compose
from langsteer.policies.dp3 import DP3Config
from langsteer.steering.waypoints import ARTICULATED
from langsteer.training.config import TrainingConfig


@pytest.fixture(scope="module")
def recipe():
    return compose("train", ["training=steering_base", "policy=steering_base"])


def test_the_base_knows_no_language_and_does_not_undo_guidance(recipe):
    policy = DP3Config.from_dict(recipe["policy"])
    assert not policy.language
    assert policy.prediction == "preconditioned"


def test_the_recipe_trains_without_a_gpu_or_a_network(recipe):
    training = TrainingConfig.from_dict(recipe["training"])
    assert not training.wandb.enabled
    assert training.num_epochs % training.checkpoint_every == 0


def test_the_comparison_asks_for_the_eight_articulated_behaviours():
    config = compose("evaluate_steering")
    assert set(config["tasks"]) == set(ARTICULATED)
    assert config["methods"][0] == "none"
