"""Limits map to [-1, 1], and turns added to an angle are not seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langsteer.policies.dp3 import DP3Config, Normalizer
from langsteer.policies.dp3.normalizer import RANGE_EPS, agent_pos_features, shortest_arc

ANGLES = [3, 4, 5, *range(7, 14)]
values = st.floats(-3, 3, allow_nan=False, width=32)


def robot_obs_of(seed, count=40):
    """States whose roll lies on both sides of the flip at pi."""
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(count, 15)).clip(-2.8, 2.8)
    roll = math.pi + generator.uniform(-0.4, 0.4, count)
    states[:, 3] = np.where(roll > math.pi, roll - 2 * math.pi, roll)
    return states


@given(actions=hnp.arrays(np.float32, (12, 7), elements=values))
def test_training_actions_fill_the_limits_and_come_back(actions):
    normalizer = Normalizer.fit(DP3Config(), robot_obs_of(0), actions)
    normalized = normalizer.action.normalize(torch.from_numpy(actions))
    moves = np.ptp(actions, axis=0) >= 2 * RANGE_EPS
    low, high = normalized[:, moves].amin(0), normalized[:, moves].amax(0)
    # An action of range r and size v keeps float32's eps * v / r of its place.
    torch.testing.assert_close(low, -torch.ones_like(low), atol=1e-2, rtol=0)
    torch.testing.assert_close(high, torch.ones_like(high), atol=1e-2, rtol=0)
    back = normalizer.action.unnormalize(normalized).numpy()
    np.testing.assert_allclose(back, actions, atol=1e-5)


def test_a_dimension_that_does_not_move_is_centred_and_not_blown_up():
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 7))
    actions[:, 2] = 0.7
    normalizer = Normalizer.fit(DP3Config(), robot_obs_of(0), actions)
    normalized = normalizer.action.normalize(torch.tensor(actions, dtype=torch.float32))
    assert normalized[:, 2].abs().max() < 1e-6
    assert normalizer.action.scale[2] == 1


@given(
    seed=st.integers(0, 50),
    turns=hnp.arrays(np.int64, (len(ANGLES),), elements=st.integers(-3, 3)),
)
@pytest.mark.parametrize("features", ["full", "tcp"])
def test_added_turns_change_no_feature(features, seed, turns):
    config = DP3Config(agent_pos=features)
    states = robot_obs_of(seed)
    normalizer = Normalizer.fit(config, states, np.eye(7))
    turned = states.copy()
    turned[:, ANGLES] += 2 * math.pi * turns
    plain, same = (
        normalizer.normalize_agent_pos(torch.tensor(x, dtype=torch.float32))
        for x in (states, turned)
    )
    torch.testing.assert_close(plain, same, atol=2e-5, rtol=0)


def test_training_states_lie_within_the_limits():
    states = robot_obs_of(1)
    normalizer = Normalizer.fit(DP3Config(), states, np.eye(7))
    seen = normalizer.normalize_agent_pos(torch.tensor(states, dtype=torch.float32))
    assert seen.abs().max() <= 1 + 1e-5


def test_the_flip_of_roll_is_no_jump():
    normalizer = Normalizer.fit(DP3Config(), robot_obs_of(2), np.eye(7))
    either_side = torch.zeros(2, 15)
    either_side[:, 3] = torch.tensor([math.pi - 1e-3, -math.pi + 1e-3])
    before, after = normalizer.normalize_agent_pos(either_side)[:, 3]
    assert abs(before - after) < 0.01


def test_fitting_does_not_depend_on_how_angles_were_stored():
    states = robot_obs_of(3)
    turned = states.copy()
    turned[::2, 3] += 2 * math.pi
    one, other = (Normalizer.fit(DP3Config(), x, np.eye(7)) for x in (states, turned))
    torch.testing.assert_close(one.agent_pos.scale, other.agent_pos.scale)
    torch.testing.assert_close(one.agent_pos.offset, other.agent_pos.offset)


def test_an_angle_that_counts_turns_is_taken_as_it_is():
    states = np.zeros((2, 15))
    states[1, 8] = 7.0  # joints have limits, so that this is more than a turn and meant so
    normalizer = Normalizer.fit(DP3Config(), states, np.eye(7))
    seen = normalizer.normalize_agent_pos(torch.tensor(states, dtype=torch.float32))
    torch.testing.assert_close(seen[:, 8], torch.tensor([-1.0, 1.0]))


@given(
    angles=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-20, 20, allow_nan=False))
)
def test_the_shortest_arc_holds_all_angles_and_is_at_most_a_turn(angles):
    low, high = shortest_arc(angles)
    assert 0 <= high - low <= 2 * math.pi
    above = (angles - low + 1e-9) % (2 * math.pi)
    assert (above <= high - low + 1e-8).all()


@given(centre=st.floats(-10, 10), spread=st.floats(0.01, 3))
def test_the_shortest_arc_of_a_cluster_is_its_extent(centre, spread):
    low, high = shortest_arc(centre + np.linspace(-spread, spread, 50))
    assert high - low == pytest.approx(2 * spread, abs=1e-6)


def test_tcp_features_are_position_sine_cosine_and_width():
    state = torch.arange(15.0) / 10
    features = agent_pos_features("tcp", state)
    angles = state[3:6]
    expected = torch.cat([state[:3], torch.sin(angles), torch.cos(angles), state[6:7]])
    assert torch.equal(features, expected)


def test_limits_travel_in_the_state_dict_and_never_to_the_optimiser():
    fitted = Normalizer.fit(DP3Config(), robot_obs_of(4), np.eye(7))
    empty = Normalizer(DP3Config())
    assert not empty.fitted
    empty.load_state_dict(fitted.state_dict())
    assert empty.fitted
    assert torch.equal(empty.agent_pos.scale, fitted.agent_pos.scale)
    assert list(fitted.parameters()) == []
