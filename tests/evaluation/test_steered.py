"""Steering in `run_experiment`: a sentence chooses the task; what cannot be is refused."""

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.steered import checked_steering, steer
from langsteer.policies.agent import Agent, sample_once
from langsteer.policies.dp3 import DP3, DP3Config

PLACES = {"name": "value_map", "value_map": 1.0, "strength": 1.0, "encoder": "lexical"}


@pytest.fixture
def agent():
    torch.manual_seed(0)
    config = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))
    return Agent(DP3(config, ObservationPipeline(n_points=64).to_dict()))


@pytest.fixture(scope="module")
def env():
    env = CalvinEnv("builtin")
    yield env
    env.close()


def test_the_default_configuration_leaves_task_and_agent_alone(agent, env):
    steering = compose("experiment")["steering"]
    checked, tasks = checked_steering(steering, "anything at all", ["stack_block"], "builtin")
    assert tasks == ["stack_block"]
    env.reset(seed=0)
    steer(agent, checked, "close_drawer", env, seed=0)
    assert agent.predict is sample_once


def test_one_scene_two_sentences_two_tasks(agent, env):
    robot_obs, scene_obs = None, None
    energies = {}
    for sentence in ("pull the drawer open", "slide the door to the left"):
        checked, (task,) = checked_steering(PLACES, sentence, ["stack_block"], "D")
        env.reset(seed=1, options=None if scene_obs is None else {"scene_obs": scene_obs})
        robot_obs, scene_obs = env.robot_obs, env.scene_obs
        steer(agent, checked, task, env, seed=0)
        assert agent.predict is not sample_once
        energies[task] = agent.predict.__self__._begun.places[0]
    assert set(energies) == {"open_drawer", "move_slider_left"}
    assert not np.array_equal(*energies.values())
    assert robot_obs is not None


def test_what_cannot_be_is_refused(agent, env):
    with pytest.raises(UserError, match="nearest are"):
        checked_steering(PLACES, "make me a coffee", ["open_drawer"], "D")
    with pytest.raises(UserError, match="knows no places"):
        checked_steering(PLACES, None, ["stack_block"], "D")
    with pytest.raises(UserError, match="scene builtin and D only, not in A"):
        checked_steering(PLACES, None, ["open_drawer"], "A")
    with pytest.raises(UserError, match="no demonstrations there"):
        nowhere = {"reference": 1.0, "samples": 4, "demonstrations": "nowhere"}
        checked_steering(nowhere, None, ["open_drawer"], "D")
    checked, tasks = checked_steering(PLACES, "shut the drawer", ["open_drawer"], "builtin")
    env.reset(seed=0)  # all doors are closed
    with pytest.raises(UserError, match="close_drawer cannot be done here: the drawer is closed"):
        steer(agent, checked, tasks[0], env, seed=0)
