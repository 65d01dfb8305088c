"""The policy that begins an expert's tasks: told a sentence, or pointed at the thing."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.driver import PolicyDriver
from langsteer.evaluation.player import UNSTEERED, look_at
from langsteer.experts.view import read_layout
from langsteer.policies import shipped_base
from langsteer.policies.agent import Agent
from langsteer.policies.loading import load_policy
from langsteer.policies.untrained import blank_network
from langsteer.sentences import missing_packages
from langsteer.steering.config import SteeringConfig
from langsteer.steering.pointing import aim_of
from langsteer.steering.sight import Sight

if missing_packages():
    pytest.skip("the policy's language encoder is not here", allow_module_level=True)

POINTING = SteeringConfig.from_dict(compose("evaluate", ["steering=pointing"])["steering"])


@pytest.fixture(scope="module")
def policy():
    return blank_network(load_policy(shipped_base()))


@pytest.fixture(scope="module")
def env(policy):
    return CalvinEnv("builtin", pipeline=Agent(policy).pipeline)


def gap_after(driver, env, steps):
    """Metres from the tcp to the point of the task after these steps."""
    env.reset(seed=0)
    layout = read_layout(env)
    point = aim_of("open_drawer").point("open_drawer", layout, Sight(layout, look_at(env)))
    driver.begin("open_drawer", env, np.random.default_rng(0))
    for _ in range(steps):
        env.step(driver.act(env))
    return float(np.linalg.norm(env.robot_obs[:3] - point))


def test_a_pointed_driver_goes_to_the_thing_and_is_told_nothing(policy, env):
    agent = Agent(policy)
    assert gap_after(PolicyDriver(agent, POINTING), env, 40) < POINTING.near
    assert not agent._told().any()
    assert gap_after(PolicyDriver(agent, UNSTEERED), env, 40) > 2 * POINTING.near
    assert agent._told().any()
