"""Attention over points: a soft choice by sentence, blind to the points' order."""

import dataclasses

import numpy as np
import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.dp3.encoder import PointAttention

CONFIG = DP3Config(
    down_dims=(16, 32),
    n_groups=4,
    point_widths=(8, 16),
    num_inference_steps=4,
    agent_pos="tcp",
    use_pc_color=True,
    attention_heads=2,
    language=True,
    language_dim=6,
)


@pytest.fixture
def policy() -> DP3:
    torch.manual_seed(0)
    policy = DP3(CONFIG)
    generator = np.random.default_rng(0)
    states, actions = generator.normal(size=(50, 15)), generator.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(CONFIG, states, actions))
    return policy


@pytest.fixture
def obs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "point_cloud": torch.randn(3, 2, 20, 6, generator=generator),
        "agent_pos": torch.randn(3, 2, 15, generator=generator),
        "language": torch.randn(3, 6, generator=generator),
    }


def test_the_order_of_points_is_free(policy, obs):
    order = torch.randperm(20)
    shuffled = obs | {"point_cloud": obs["point_cloud"][:, :, order]}
    torch.testing.assert_close(policy.encode(shuffled), policy.encode(obs), atol=1e-5, rtol=0)


def test_every_weight_of_the_attention_learns(policy, obs):
    loss = policy({"obs": obs, "action": torch.rand(3, 16, 7)})
    loss.backward()
    for name, weight in policy.obs_encoder.attention.named_parameters():
        # A key's bias adds the same to all points, which the softmax ignores.
        if name != "keys.bias":
            assert weight.grad.abs().sum() > 0, name


def test_the_sentence_moves_what_is_attended_to(policy, obs):
    other = obs | {"language": -obs["language"]}
    width = policy.obs_encoder.output_dim * 2
    difference = (policy.encode(obs) - policy.encode(other))[:, :width]
    assert difference.abs().max() > 1e-3


def test_guidance_asks_without_the_sentence_too(policy, obs):
    guided = DP3(dataclasses.replace(CONFIG, language_guidance=1.5))
    guided.load_state_dict(policy.state_dict())
    noise = torch.randn(3, 16, 7)
    plain = policy.predict_action(obs, noise=noise)["action"]
    assert not torch.equal(guided.predict_action(obs, noise=noise)["action"], plain)


def test_attention_finds_the_point_of_one_colour():
    """Trained for seconds, it locates the reddest of the points to a centimetre."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, language=False, attention_heads=4)
    attention = PointAttention(config, 3)
    optimizer = torch.optim.AdamW(attention.parameters(), lr=3e-3)
    state, tcp = torch.zeros(64, 10), torch.zeros(64, 3)

    def sample() -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.rand(64, 40, 6) - 0.5
        points[..., 3:] = 0.3
        points[:, 0, 3:] = torch.tensor([1.0, 0.0, 0.0])
        return points, points[:, 0, :3]

    for _ in range(600):
        points, target = sample()
        loss = (attention(points, state, tcp, None)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    points, target = sample()
    error = (attention(points, state, tcp, None)[0] - target).norm(dim=-1)
    assert error.median() < 0.02


def test_foresight_teaches_its_heads_where_the_hand_will_be(policy, obs):
    """Heads that are told nothing but the hand's future place find the point that lies there."""
    points = torch.rand(64, 2, 20, 6) - 0.5
    points[:, :, 0, 3:] = torch.tensor([1.0, 0.0, 0.0])
    seen = {
        "point_cloud": points,
        "agent_pos": torch.zeros(64, 2, 15),
        "language": torch.zeros(64, 6),
    }
    ahead = points[:, -1, :1, :3].expand(-1, 3, -1)
    batch = {"obs": seen, "action": torch.zeros(64, 16, 7), "hand_ahead": ahead}
    foreseeing = DP3(dataclasses.replace(CONFIG, attention_heads=3, foresight=1.0))
    foreseeing.normalizer.load_state_dict(policy.normalizer.state_dict())
    optimizer = torch.optim.AdamW(foreseeing.parameters(), lr=1e-2)

    @torch.no_grad()
    def gap() -> float:
        _, looked_at = foreseeing._look(seen, None)
        assert looked_at is not None
        return float((looked_at - ahead).norm(dim=-1).median())

    before = gap()
    for _ in range(80):
        optimizer.zero_grad()
        foreseeing(batch).backward()
        optimizer.step()
    assert gap() < before / 3


def test_foresight_needs_heads_to_teach():
    with pytest.raises(UserError, match="foresight"):
        dataclasses.replace(CONFIG, attention_heads=2, foresight=0.1)
