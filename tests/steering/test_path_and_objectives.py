"""The commanded path, the objectives on it, and the gradient that descends them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.steering.objectives import Reference, Sum, ValueMap
from langsteer.steering.path import CommandedPose, commanded_path, path_curvature


def test_path_is_what_the_environments_controller_commands():
    pytest.importorskip("pybullet")
    from langsteer.envs.calvin_env import CalvinEnv

    env = CalvinEnv("builtin", renderer="tiny")
    env.reset()
    env.step(np.array([1.0, -1.0, -1.0, 0.0, 0.5, 1.0, 1.0]))  # the arm lags behind from now on
    assert np.abs(env.commanded_pose[:3] - env.robot_obs[:3]).max() > 1e-3
    hand = CommandedPose(env.commanded_pose)
    actions = np.random.default_rng(0).uniform(-0.4, 0.4, (10, 7))
    path = commanded_path(torch.from_numpy(hand.pose), torch.from_numpy(actions))
    for index, action in enumerate(actions):
        env.step(action)
        np.testing.assert_allclose(env.commanded_pose, path[index, :6], atol=1e-12)
    hand.advance(actions)
    np.testing.assert_allclose(hand.pose, path[-1, :6], atol=1e-12)
    assert torch.equal(path[:, 6], torch.from_numpy(actions[:, 6]))
    env.close()


@pytest.mark.parametrize("steps", [1, 2, 15])
def test_path_curvature_is_the_largest_eigenvalue(steps):
    lower = np.tril(np.ones((steps, steps)))
    assert path_curvature(steps) == pytest.approx(np.linalg.eigvalsh(lower.T @ lower)[-1])


def poses(seed, shape=(3, 15, 7)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.001, 1.0))
def test_reference_energy_is_at_most_a_mean_and_at_least_the_nearest(seed, temperature):
    targets = poses(seed, (4, 15, 7)) * 0.1
    path = poses(seed + 1) * 0.1
    energies = Reference(targets, temperature)(path)
    single = torch.stack([Reference(target[None], temperature)(path) for target in targets])
    assert (energies >= single.min(dim=0).values - 1e-9).all()
    assert (energies <= single.mean(dim=0) + 1e-9).all()


def test_reference_is_zero_on_it_and_draws_each_sample_to_the_nearest():
    targets = torch.stack([torch.zeros(5, 7), torch.ones(5, 7)]).double()
    path = torch.stack([torch.full((5, 7), 0.1), torch.full((5, 7), 0.9)]).double().requires_grad_()
    Reference(targets, 1e-4)(path).sum().backward()
    assert path.grad is not None
    assert (path.grad[0] > 0).all()
    assert (path.grad[1] < 0).all()
    exact = Reference(targets[:1])(targets[:1])
    assert exact.item() == pytest.approx(0.0, abs=1e-12)


def test_value_map_ignores_what_does_not_matter_and_repels_from_points():
    waypoint = torch.tensor([0.1, 0.0, 0.5, math.nan, math.nan, math.nan, -1.0])
    at_goal = torch.tensor([0.1, 0.0, 0.5, 1.0, 2.0, 3.0, -1.0]).expand(1, 5, 7).clone()
    assert ValueMap(waypoint)(at_goal).item() == 0
    beside = ValueMap(waypoint, avoid=torch.tensor([[0.1, 0.02, 0.5]]))
    at_goal.requires_grad_()
    energy = beside(at_goal)
    assert energy.item() > 0
    energy.sum().backward()
    assert at_goal.grad is not None
    assert (at_goal.grad[..., 1] > 0).all()  # downhill leads away from the point
    assert at_goal.grad.isfinite().all()
    far = ValueMap(waypoint, avoid=torch.tensor([[1.0, 1.0, 1.0]]))
    assert far(at_goal).item() == 0


def test_sum_weighs_its_parts():
    targets, path = poses(0, (1, 15, 7)), poses(1)
    part = Reference(targets)
    torch.testing.assert_close(Sum([part, part], [2.0, 0.5])(path), 2.5 * part(path))
