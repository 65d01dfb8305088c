"""A policy with language heeds its sentence, and one without has none."""

import dataclasses

import numpy as np
import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer

SMALL = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16), num_inference_steps=4)
SPOKEN = dataclasses.replace(SMALL, language=True, language_dim=6)


def policy_of(config=SPOKEN):
    torch.manual_seed(0)
    policy = DP3(config)
    generator = np.random.default_rng(0)
    robot_obs, actions = generator.normal(size=(50, 15)), generator.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(config, robot_obs, actions))
    return policy


@pytest.fixture
def obs():
    generator = torch.Generator().manual_seed(0)
    return {
        "point_cloud": torch.randn(3, 2, 20, 3, generator=generator),
        "agent_pos": torch.randn(3, 2, 15, generator=generator),
        "language": torch.randn(3, 6, generator=generator),
    }


def sample(obs, noise, **choices):
    policy = policy_of(dataclasses.replace(SPOKEN, **choices))
    return policy.predict_action(obs, noise=noise)["action_pred"]


def test_another_sentence_gives_another_action(obs):
    noise = torch.randn(3, 16, 7)
    other = obs | {"language": -obs["language"]}
    assert not torch.equal(sample(obs, noise), sample(other, noise))


def test_guidance_scale_interpolates_from_no_sentence_to_the_sentence(obs):
    noise = torch.randn(3, 16, 7)
    silent = obs | {"language": torch.zeros(3, 6)}
    torch.testing.assert_close(
        sample(obs, noise, language_guidance=0.0), sample(silent, noise), atol=1e-5, rtol=0
    )
    nearly = sample(obs, noise, language_guidance=1 + 1e-6)
    torch.testing.assert_close(nearly, sample(obs, noise), atol=1e-4, rtol=0)
    overstated = sample(obs, noise, language_guidance=3.0)
    assert not torch.allclose(overstated, sample(obs, noise))


def test_samples_of_one_observation_share_its_sentence(obs):
    policy = policy_of(dataclasses.replace(SPOKEN, language_guidance=2.0))
    noise = torch.randn(6, 16, 7)
    together = policy.predict_action(obs, noise=noise, samples_per_observation=2)["action"]
    repeated = {key: value.repeat_interleave(2, 0) for key, value in obs.items()}
    expected = policy.predict_action(repeated, noise=noise)["action"]
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)


def test_sentences_are_withheld_in_training_only(obs):
    policy = policy_of(dataclasses.replace(SPOKEN, language_dropout=0.9))
    batch = {"obs": obs, "action": torch.rand(3, 16, 7)}
    fixed = {"noise": torch.randn(3, 16, 7), "timesteps": torch.tensor([1, 50, 90])}

    def losses():
        seeds = [torch.Generator().manual_seed(seed) for seed in range(8)]
        return {policy.compute_loss(batch, **fixed, generator=seed).item() for seed in seeds}

    assert len(losses()) > 1
    policy.eval()
    assert len(losses()) == 1


def test_the_share_of_withheld_sentences_is_the_configs():
    language = policy_of(dataclasses.replace(SPOKEN, language_dropout=0.3)).language
    kept = language.withhold(torch.ones(4000, 6), generator=torch.Generator().manual_seed(0))
    assert (kept[:, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_missing_or_foreign_sentence_is_an_error(obs):
    policy = policy_of()
    without = {key: value for key, value in obs.items() if key != "language"}
    for wrong in (without, obs | {"language": torch.zeros(3, 5)}):
        with pytest.raises(UserError, match="language of shape"):
            policy.predict_action(wrong)


def test_a_policy_without_language_pays_nothing_for_it():
    names = policy_of(SMALL).state_dict().keys()
    assert not [name for name in names if "language" in name]
    assert [name for name in policy_of().state_dict() if "language" in name]
