"""Steering in `run_experiment`: a sentence chooses the task; what cannot be is refused."""

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.player import Player, steered_tasks
from langsteer.experts.recording import Performer
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.steering.config import SteeringConfig

PLACES = SteeringConfig("value_map", value_map=1.0, strength=1.0, encoder="lexical")


@pytest.fixture
def agent():
    torch.manual_seed(0)
    config = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))
    policy = DP3(config, ObservationPipeline(n_points=64).to_dict())
    random = np.random.default_rng(0)
    states, actions = random.uniform(-1, 1, (64, 15)), random.uniform(-1, 1, (64, 7))
    policy.set_normalizer(Normalizer.fit(config, states, actions))
    return Agent(policy)


@pytest.fixture(scope="module")
def env():
    env = CalvinEnv("builtin", pipeline=ObservationPipeline(n_points=64))
    yield env
    env.close()


def played(player, **goal):
    """The states of nine steps from one start."""
    player.env.reset(seed=1)
    return np.array(player.play("open_drawer", "open it", seed=0, max_steps=9, **goal).robot_obs)


def test_the_default_configuration_leaves_task_and_agent_alone(agent, env):
    steering = SteeringConfig.from_dict(compose("experiment")["steering"])
    tasks = steered_tasks(steering, "anything at all", ["stack_block"], "builtin")
    assert tasks == ("stack_block",)
    plain = played(Player(env, agent))
    assert np.array_equal(played(Player(env, agent, steering), goal="close_drawer"), plain)


def test_one_scene_two_sentences_two_tasks(agent, env):
    player, paths = Player(env, agent, PLACES), {}
    for sentence in ("pull the drawer open", "slide the door to the left"):
        (task,) = steered_tasks(PLACES, sentence, ["stack_block"], "builtin")
        paths[task] = played(player, goal=task)
    assert set(paths) == {"open_drawer", "move_slider_left"}
    one, other = paths.values()
    assert np.array_equal(one[0], other[0])
    assert not np.array_equal(one, other)


def test_a_steering_ends_with_its_rollout(agent, env):
    plain = played(Player(env, agent))
    player = Player(env, agent, PLACES)
    assert not np.array_equal(played(player, goal="open_drawer"), plain)
    assert np.array_equal(played(player, goal=None), plain)


class Still:
    """A policy of another kind: it stays where it is."""

    n_obs_steps, sees_colours = 1, False

    def reset(self, seed=0): ...

    def instruct(self, sentence): ...

    def observe(self, observation): ...

    def act(self, observation):
        return np.zeros((8, 7))


def test_any_policy_is_played_and_a_diffusion_policy_alone_is_steered(env):
    assert len(played(Player(env, Still(), PLACES))) == 10
    with pytest.raises(UserError, match="use steering=none"):
        played(Player(env, Still(), PLACES), goal="open_drawer")


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="nearest are"):
        steered_tasks(PLACES, "make me a coffee", ["open_drawer"], "D")
    with pytest.raises(UserError, match="knows no places"):
        steered_tasks(PLACES, None, ["stack_block"], "D")
    with pytest.raises(UserError, match="scene builtin and D only, not in A"):
        steered_tasks(PLACES, None, ["open_drawer"], "A")
    nowhere = SteeringConfig(reference=1.0, samples=4, demonstrations="nowhere")
    with pytest.raises(UserError, match="no demonstrations there"):
        steered_tasks(nowhere, None, ["open_drawer"], "D")


def test_an_episode_that_begins_where_its_task_is_done_ends_the_experiment(
    checkpoint, tmp_path, monkeypatch
):
    # After a reset all doors are closed.
    monkeypatch.setattr(Performer, "prepare", lambda self, task, random: self.env.reset(seed=0))
    keys = [
        f"policy.ckpt_path={checkpoint}", f"output_dir={tmp_path}", "env.task=close_drawer",
        "steering=value_map", "num_episodes=1",
    ]  # fmt: skip
    with pytest.raises(UserError, match="close_drawer cannot be done here: the drawer is closed"):
        run_experiment(ExperimentSettings.from_dict(compose("experiment", keys)))
