"""The policy sees in the simulator what it saw in training, at the same moments."""

import dataclasses

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet")

from langsteer.calvin.dataset_writer import achieved_actions
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.calvin_adapter import CalvinModel
from langsteer.evaluation.rollout import run_task
from langsteer.experts.recording import Performer
from langsteer.policies.agent import Agent, load_agent
from langsteer.policies.loading import load_policy


@pytest.fixture
def env():
    env = CalvinEnv(scene="builtin", pipeline=ObservationPipeline(n_points=64))
    yield env
    env.close()


def scripted(actions):
    """A predictor that plays actions from a list, eight at a time."""
    chunks = [actions[i : i + 8] for i in range(0, len(actions), 8)]
    return lambda policy, obs, generator: chunks.pop(0)


def test_rollout_of_an_experts_actions_opens_the_drawer(env, checkpoint):
    episode = Performer(env, images=False).single("open_drawer", np.random.default_rng(0))
    states = np.array(episode.robot_obs)
    _, relative = achieved_actions(states)
    env.reset(options={"robot_obs": states[0], "scene_obs": episode.scene_obs[0]})
    agent = Agent(load_agent(checkpoint).policy, scripted(relative.astype(np.float32)))
    run = run_task(env, agent, "open_drawer", max_steps=len(relative))
    assert run.success
    assert "open_drawer" in run.tasks_seen
    assert len(run.robot_obs) == run.steps + 1


@pytest.fixture(params=[1, 2, 3])
def of_frames(request, checkpoint, checkpoint_factory, tmp_path):
    """A checkpoint whose policy sees so many frames."""
    config = dataclasses.replace(load_policy(checkpoint).config, n_obs_steps=request.param)
    return checkpoint_factory(tmp_path / "frames.ckpt", ObservationPipeline(n_points=64), config)


def test_predictions_see_the_present_frame_and_those_just_before_it(env, of_frames):
    seen = []

    def predict(policy, obs, generator):
        seen.append(obs["agent_pos"][0].numpy())
        return np.tile(np.array([0.3, 0, 0, 0, 0, 0, 1], np.float32), (8, 1))

    env.reset(seed=0)
    agent = Agent(load_policy(of_frames), predict)
    run = run_task(env, agent, "open_drawer", max_steps=20)
    assert run.predicted_at == [0, 8, 16]
    states = np.array(run.robot_obs, dtype=np.float32)
    for step, frames in zip(run.predicted_at, seen, strict=True):
        before = np.arange(step - agent.n_obs_steps + 1, step + 1)
        # Of the first frame there is no earlier one: it is repeated, as training pads.
        assert np.array_equal(frames, states[before.clip(0)])


def test_executed_actions_are_those_from_the_present_on(env, checkpoint):
    agent = load_agent(checkpoint)
    env.reset(seed=0)
    frame = env.observe(point_cloud=True)
    agent.reset(seed=3)
    actions = agent.act(frame)
    obs = {
        "point_cloud": torch.from_numpy(frame["point_cloud"]).expand(1, 2, -1, -1),
        "agent_pos": torch.from_numpy(frame["robot_obs"].astype(np.float32)).expand(1, 2, -1),
    }
    whole = agent.policy.predict_action(obs, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(actions, whole["action_pred"][0, 1:9].numpy())


def test_same_seed_gives_the_same_rollout(env, checkpoint):
    agent, runs = load_agent(checkpoint), []
    for _ in range(2):
        env.reset(seed=5)
        agent.reset(seed=7)
        runs.append(run_task(env, agent, "open_drawer", max_steps=24))
    assert np.array_equal(runs[0].robot_obs, runs[1].robot_obs)


def test_calvins_own_loop_meets_the_same_actions_as_ours(of_frames):
    env = CalvinEnv(scene="builtin", renderer="tiny", pipeline=ObservationPipeline(n_points=64))
    agent = load_agent(of_frames)
    env.reset(seed=1)
    agent.reset(seed=0)
    ours = run_task(env, agent, "open_drawer", max_steps=18)
    model, states = CalvinModel(of_frames, renderer="tiny"), []
    env.reset(seed=1)
    model.reset()
    for _ in range(18):
        action = model.step(env.observe(cameras=("static", "gripper")), "open the drawer")
        assert action[6] in (-1.0, 1.0)
        env.step(action)
        states.append(env.robot_obs)
    env.close()
    assert np.array_equal(states, ours.robot_obs[1:])
