"""The gymnasium environments: what gymnasium and evaluation loops rely on."""

import warnings

import gymnasium
import numpy as np
import pytest

pytest.importorskip("pybullet")

from gymnasium.utils.env_checker import check_env

from langsteer.calvin.benchmark import chain, initial_observations
from langsteer.calvin.cameras import STATIC_CAMERA
from langsteer.calvin.tasks import achieved
from langsteer.compat.gym_env import CHAIN_ID, TASK_ID
from langsteer.errors import UserError
from langsteer.experts.library import make_skill
from langsteer.experts.motion import Hand
from langsteer.experts.view import View, read_layout

STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


@pytest.fixture
def make():
    """Makes environments by their ids and closes them after the test."""
    made = []

    def make(name=TASK_ID, **settings):
        made.append(gymnasium.make(name, **settings))
        return made[-1]

    yield make
    for env in made:
        env.close()


def expert(env, task):
    """Relative actions of the scripted skill, from where the environment stands."""
    sim, rng = env.unwrapped.env, np.random.default_rng(0)
    layout = read_layout(sim)
    hand = Hand(sim.robot_obs[:3], sim.robot_obs[3:6], rng)
    skill = make_skill(task, hand, rng)
    while (action := skill.act(View(layout, sim.robot_obs, sim.scene_obs))) is not None:
        yield action


@pytest.mark.parametrize("name", [TASK_ID, CHAIN_ID])
def test_gymnasium_checker_passes(name, make):
    env = make(name, observation="state+rgb+depth+cloud", render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # states and clouds have no bounds
        check_env(env.unwrapped)


def test_success_ends_the_episode_with_reward_one(make):
    env = make(task="open_drawer", observation="")
    _, info = env.reset(seed=3)
    assert info == {"is_success": False}
    assert env.unwrapped.task_description == "open the drawer"
    for action in expert(env, "open_drawer"):
        _, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated) == (float(info["is_success"]), bool(reward), False)
        if terminated:
            return
    pytest.fail("the drawer was not opened")


def test_another_task_earns_nothing_and_ends_nothing(make):
    env = make(task="move_slider_left", observation="")
    robot_obs, _ = initial_observations(chain(4).initial_state)
    env.reset(options={"robot_obs": robot_obs})  # the drawer is closed
    closed = env.unwrapped.env.info()
    steps = [env.step(action)[1:] for action in expert(env, "open_drawer")]
    assert achieved(closed, env.unwrapped.env.info(), "open_drawer")
    assert all(step == (0.0, False, False, {"is_success": False}) for step in steps)


def test_steps_that_are_used_up_truncate(make):
    env = make(observation="", max_steps=2)
    env.reset(seed=0)
    assert env.step(STILL)[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step(STILL)
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, False, True, False)


def test_task_that_needs_a_block_in_hand_starts_with_it(make):
    env = make(task="place_in_drawer", observation="")
    env.reset(seed=0)
    touched = {body for body, _ in env.unwrapped.env.info().robot_contacts}
    assert len(touched) == 1 and touched < {"block_red", "block_blue", "block_pink"}


def test_observation_has_the_parts_asked_for_and_they_agree(make):
    env = make(observation="rgb+depth+cloud", renderer="tiny")
    seen, _ = env.reset(seed=0)
    sim = env.unwrapped.env
    rgb, depth = sim.render_camera("static")
    assert np.array_equal(seen["pixels"]["static"], rgb)
    assert np.array_equal(seen["depth_static"], depth)
    assert np.array_equal(seen["point_cloud"], sim.observe(point_cloud=True)["point_cloud"])
    assert seen["agent_pos"].shape == (15,) and "environment_state" not in seen
    assert set(make(observation="state").reset(seed=0)[0]) == {"agent_pos", "environment_state"}


def test_coloured_cloud_is_what_a_policy_that_sees_colours_is_given(make):
    env = make(observation="coloured_cloud")
    seen, _ = env.reset(seed=0)
    expected = env.unwrapped.env.observe(point_cloud=True, coloured=True)["point_cloud"]
    assert np.array_equal(seen["point_cloud"], expected)
    assert env.observation_space["point_cloud"].shape == expected.shape == (2048, 6)


@pytest.mark.parametrize("renderer", ["tiny", "depth"])
def test_intrinsics_and_pose_put_the_table_at_its_height(renderer, make):
    env = make(observation="depth", renderer=renderer)
    seen, _ = env.reset(seed=0)
    v, u = np.mgrid[: STATIC_CAMERA.height, : STATIC_CAMERA.width]
    rays = np.linalg.inv(seen["intrinsics_static"]) @ np.stack([u, v, np.ones_like(u)]).reshape(
        3, -1
    )
    points = np.vstack([rays * seen["depth_static"].ravel(), np.ones(u.size)])
    x, y, z, _ = seen["camera_pose_static"] @ points
    on_top = (abs(z - 0.44) < 0.01) & (abs(x) < 0.4) & (y > -0.17) & (y < -0.02)
    assert on_top.sum() > 200
    assert np.median(z[on_top]) == pytest.approx(0.44, abs=5e-4)


def test_same_seed_gives_the_same_start(make):
    one, other = (make(observation="state") for _ in range(2))
    first = one.reset(seed=7)[0]["environment_state"]
    assert np.array_equal(other.reset(seed=7)[0]["environment_state"], first)
    assert not np.array_equal(one.reset()[0]["environment_state"], first)


def test_a_start_can_be_given(make):
    env = make(observation="state")
    robot_obs, scene_obs = initial_observations(chain(4).initial_state)
    seen, _ = env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs, "other": True})
    np.testing.assert_allclose(seen["environment_state"][:6], scene_obs[:6], atol=1e-4)


@pytest.mark.parametrize("kind", [gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv])
def test_vector_environments_of_gymnasium_run_it(kind):
    def make_one():
        return gymnasium.make(TASK_ID, observation="cloud", max_steps=2)

    envs = kind([make_one, make_one])
    try:
        seen, _ = envs.reset(seed=[1, 2])
        assert seen["point_cloud"].shape == (2, 2048, 3)
        for _ in range(2):
            _, _, _, truncated, info = envs.step(np.stack([STILL, STILL]))
        assert truncated.all() and not info["is_success"].any()
        assert envs.call("task_description") == ("open the drawer",) * 2
        assert envs.call("_max_episode_steps") == (2, 2)
    finally:
        envs.close()


def test_chain_is_the_benchmarks_and_goes_on_where_a_task_is_done(make):
    env = make(CHAIN_ID, observation="", max_steps=3)
    _, info = env.reset(options={"chain": 12})
    expected = chain(12)
    assert info == {"is_success": False, "completed": 0, "chain": 12}
    play = env.unwrapped
    sim = play.env
    for number, task in enumerate(expected.tasks):
        assert play.task == task
        play._start = play.env.info()
        play._act = lambda action: True  # as if the task were done
        _, reward, terminated, truncated, info = env.step(STILL)
        assert (reward, truncated, info["completed"]) == (1.0, False, number + 1)
        assert terminated == (number == 4) == info["is_success"]
    assert sim.config.name == "builtin"


def test_failed_task_ends_its_chain_and_the_next_one_follows(make):
    env = make(CHAIN_ID, observation="", max_steps=2)
    assert env.reset(seed=1003)[1]["chain"] == 3
    env.step(STILL)
    _, _, terminated, truncated, info = env.step(STILL)
    assert (terminated, truncated, info["completed"]) == (False, True, 0)
    assert env.reset()[1]["chain"] == 4


def test_unknown_names_are_refused(make):
    with pytest.raises(UserError, match="no task 'fly'"):
        make(task="fly")
    with pytest.raises(UserError, match=r"no part 'rgbd'.*rgb, depth"):
        make(observation="rgbd")
    with pytest.raises(UserError, match="not both"):
        make(observation="cloud+coloured_cloud")
