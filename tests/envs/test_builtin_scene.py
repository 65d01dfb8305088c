"""The built-in scene is scene D in plain shapes: same frames, ranges, states and tasks."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.kinematics import tcp_pose
from langsteer.calvin.tasks import detect
from langsteer.envs.physics import joint_ids, link_ids

MOVING = ("base__slide", "base__drawer", "base__button", "base__switch")


@pytest.fixture
def both(make_env, calvin_assets):
    """The built-in scene and scene D at the same random start."""
    envs = make_env("builtin", renderer="tiny"), make_env("D", calvin_assets, renderer="tiny")
    for env in envs:
        env.reset(seed=3)
    return envs


def parts(env):
    """Numbers of all links and the moving joints, and their ranges."""
    physics, table = env.physics, env.table.table
    joints = joint_ids(physics, table)
    ranges = {name: physics.getJointInfo(table, joints[name])[8:10] for name in MOVING}
    return link_ids(physics, table), link_ids(physics, env._robot.body), joints, ranges


def test_links_and_joints_have_the_names_numbers_and_ranges_of_scene_d(both):
    (*names, ranges), (*names_d, ranges_d) = (parts(env) for env in both)
    assert names == names_d
    for joint in MOVING:
        np.testing.assert_allclose(ranges[joint], ranges_d[joint], atol=1e-9)
    assert both[0].block_names == both[1].block_names


@pytest.mark.parametrize("joint", range(4))
def test_parts_move_where_those_of_scene_d_move(both, joint):
    boxes = []
    for env in both:
        scene_obs = np.zeros(24)
        scene_obs[6:] = env.scene_obs[6:]
        scene_obs[joint] = (0.28, 0.22, 0.02, 0.088)[joint]
        env.reset(options={"scene_obs": scene_obs})
        link = joint_ids(env.physics, env.table.table)[MOVING[joint]]
        boxes.append(env.physics.getAABB(env.table.table, link))
    np.testing.assert_allclose(boxes[0], boxes[1], atol=0.007)


def test_same_seed_gives_the_start_of_scene_d(both):
    np.testing.assert_allclose(both[0].robot_obs, both[1].robot_obs, atol=1e-6)
    np.testing.assert_allclose(both[0].scene_obs, both[1].scene_obs, atol=5e-3)


def test_tcp_agrees_with_our_kinematics(both):
    env = both[0]
    expected = tcp_pose(env.robot_obs[7:14])[:3, 3]
    np.testing.assert_allclose(env.robot_obs[:3], expected, atol=5e-4)


@pytest.mark.parametrize("name", ["D_lift_blue", "D_open_drawer", "D_press_button", "D_push_red"])
def test_actions_that_solve_a_task_in_scene_d_solve_it_here(name, traces, make_env):
    trace = traces[name]
    env = make_env("builtin", renderer="tiny")
    start_obs = {"robot_obs": trace["reset_robot_obs"], "scene_obs": trace["reset_scene_obs"]}
    env.reset(options=start_obs)
    start = env.info()
    for action in trace["rel_actions"]:
        env.step(action)
    assert detect(start, env.info()) == {str(trace["tasks"][-1])}


def test_blocks_rest_where_calvin_rests_them(make_env):
    env = make_env("builtin", renderer="tiny")
    env.reset(seed=0)
    for _ in range(60):
        env.step([0, 0, 0, 0, 0, 0, 1])
    for name, height in zip(env.block_names, env.scene_obs[8::6], strict=True):
        assert height == pytest.approx(0.46, abs=2e-3), name
