"""Promises of the environment's interface."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pybullet")

import pybullet
from gymnasium.utils.env_checker import check_env

from langsteer.calvin.cameras import PIXEL_CENTRE
from langsteer.data.pointcloud import ObservationPipeline, point_cloud
from langsteer.envs.actions import checked_action
from langsteer.errors import UserError

NOTHING = np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture
def env(make_env):
    env = make_env("builtin", renderer="tiny", render_mode="rgb_array")
    env.reset(seed=0)
    return env


def test_gymnasium_checker_passes(env):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # states have no bounds, and no spec is registered
        check_env(env)


def test_same_seed_gives_the_same_episode(env):
    def episode():
        env.reset(seed=5)
        rng = np.random.default_rng(0)
        for _ in range(30):
            env.step(np.append(rng.uniform(-1, 1, 6), 1))
        return np.append(env.robot_obs, env.scene_obs)

    first = episode()
    assert np.array_equal(first, episode())
    env.reset(seed=6)
    assert not np.array_equal(env.scene_obs[6:], first[21:])


def test_random_start_and_the_same_start_given_are_one(env):
    env.reset(seed=9)
    expected = env.step(NOTHING)[0]["scene_obs"]
    scene_obs = np.zeros(24)
    scene_obs[6:] = env.table.sample_block_poses(np.random.default_rng(9)).ravel()
    env.reset(options={"scene_obs": scene_obs})
    assert np.array_equal(env.step(NOTHING)[0]["scene_obs"], expected)


def test_random_starts_keep_blocks_apart_and_on_the_surfaces(env):
    for seed in range(20):
        env.reset(seed=seed)
        blocks = env.info().blocks
        assert not any(block.touched_bodies & blocks.keys() for block in blocks.values())
        for block in blocks.values():
            assert any(
                np.all(np.subtract(block.position, low) > -0.01)
                and np.all(np.subtract(high, block.position) > -0.01)
                for low, high in env.config.surfaces.values()
            )


def test_environments_in_one_process_do_not_touch_each_other(make_env):
    alone = make_env("builtin", renderer="tiny")
    alone.reset(seed=1)
    for _ in range(20):
        alone.step([0.5, 0, -1, 0, 0, 0, -1])
    expected = alone.robot_obs
    one, other = (make_env("builtin", renderer="tiny") for _ in range(2))
    one.reset(seed=1)
    other.reset(seed=2)
    for _ in range(20):
        one.step([0.5, 0, -1, 0, 0, 0, -1])
        other.step([-0.5, 0.3, 1, 0, 0, 0, 1])
    alone.close()
    assert np.array_equal(one.robot_obs, expected)
    other.close()
    one.step(NOTHING)


def test_close_can_be_repeated_and_frees_the_world(make_env):
    env = make_env("builtin", renderer="tiny")
    client = env.physics.client_id
    env.close()
    env.close()
    assert not pybullet.isConnected(client)
    for use in (
        env.reset,
        env.info,
        lambda: env.step(NOTHING),
        lambda: env.render_camera("static"),
    ):
        with pytest.raises(UserError, match="closed"):
            use()


def test_a_forgotten_environment_frees_its_world(make_env):
    from langsteer.envs.calvin_env import CalvinEnv

    client = CalvinEnv("builtin", renderer="tiny").physics.client_id
    assert not pybullet.isConnected(client)


def test_states_only_unless_asked_for_more(env):
    assert set(env.step(NOTHING)[0]) == {"robot_obs", "scene_obs"}
    seen = env.observe(cameras=("static", "gripper"))
    assert seen["rgb_obs"]["rgb_static"].shape == (200, 200, 3)
    assert seen["rgb_obs"]["rgb_gripper"].dtype == np.uint8
    assert seen["depth_obs"]["depth_gripper"].shape == (84, 84)
    assert seen["depth_obs"]["depth_static"].dtype == np.float32
    assert env.render().shape == (200, 200, 3)


def test_point_cloud_is_that_of_the_converter(env):
    from langsteer.calvin.kinematics import camera_pose_from_tcp

    seen = env.observe(cameras=("static", "gripper"), point_cloud=True)
    depth = {name: seen["depth_obs"][f"depth_{name}"] for name in ("static", "gripper")}
    expected = point_cloud(env.pipeline, depth, camera_pose_from_tcp(seen["robot_obs"]))
    assert np.array_equal(seen["point_cloud"], expected)
    assert seen["point_cloud"].shape == (2048, 3)


@pytest.mark.parametrize("renderer", ["depth", "tiny"])
def test_table_top_in_the_cloud_lies_at_its_height(renderer, make_env):
    env = make_env("builtin", renderer=renderer)
    env.reset(seed=0)
    cloud = env.observe(point_cloud=True)["point_cloud"]
    x, y, z = cloud.T
    on_top = (abs(z - 0.44) < 0.01) & (abs(x) < 0.4) & (y > -0.17) & (y < -0.02)
    assert on_top.sum() > 200
    assert np.median(z[on_top]) == pytest.approx(0.44, abs=5e-4)


def test_depth_renderer_draws_the_world_of_the_last_reset(make_env):
    used, new = (make_env("builtin") for _ in range(2))
    for seed in (1, 2):
        used.reset(seed=seed)
        used.observe(point_cloud=True)
    new.reset(seed=2)
    assert np.array_equal(used.render_depth("static"), new.render_depth("static"))
    rgb, depth = used.render_camera("gripper")
    assert rgb.shape == (84, 84, 3) and np.array_equal(depth, used.render_depth("gripper"))


def test_pixel_centre_follows_the_renderer_and_the_rest_is_the_policys(make_env):
    pipeline = ObservationPipeline(n_points=512, pixel_centre=PIXEL_CENTRE["egl"])
    env = make_env("builtin", renderer="tiny", pipeline=pipeline)
    assert env.pipeline == dataclasses.replace(pipeline, pixel_centre=PIXEL_CENTRE["tiny"])


@pytest.mark.parametrize(("led_reset", "lit"), [("head", [0, 1]), ("pinned", [1, 0])])
def test_led_that_was_reset_lit_goes_out_at_the_first_press_or_the_second(led_reset, lit, make_env):
    env = make_env("builtin", renderer="tiny", led_reset=led_reset)
    scene_obs = env.reset(seed=0)[0]["scene_obs"]
    scene_obs[5] = 1
    env.reset(options={"scene_obs": scene_obs})
    seen = []
    for _ in range(2):
        for joint in (0.02, 0.0):  # down and up
            env.physics.resetJointState(env.table.table, env.table._button, joint)
            env.table.step()
        seen.append(int(env.table.observe()[5]))
    assert seen == lit


def test_bulb_reset_against_its_switch_stays_until_the_switch_says_otherwise(env):
    scene_obs = env.scene_obs
    scene_obs[3], scene_obs[4] = 0.0, 1.0
    env.reset(options={"scene_obs": scene_obs})
    assert env.step(NOTHING)[0]["scene_obs"][4] == 1.0
    scene_obs[3], scene_obs[4] = 0.088, 0.0
    env.reset(options={"scene_obs": scene_obs})
    assert env.step(NOTHING)[0]["scene_obs"][4] == 1.0


def test_provenance_names_all_that_results_depend_on(make_env, calvin_assets):
    builtin, scene_d = make_env("builtin", renderer="tiny"), make_env("D", calvin_assets)
    found = [env.provenance() for env in (builtin, scene_d)]
    assert json.loads(json.dumps(found)) == found
    assert (found[0]["scene"], found[1]["scene"]) == ("builtin", "D")
    assert (found[0]["renderer"], found[1]["renderer"]) == ("tiny", "depth")
    assert found[0]["assets"] != found[1]["assets"]
    assert found[0]["led_reset"] == "head"
    [name] = {"pybullet", "pybullet-arm64"} & found[0].keys()
    assert found[0][name] == importlib.metadata.version(name)


def test_pybullet_says_nothing_when_it_is_imported():
    code = "import langsteer.envs.calvin_env, os; os.write(2, b'said by us')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"said by us")


def test_a_process_without_standard_error_can_simulate():
    code = "from langsteer.envs.physics import Physics; Physics().close()"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code])
    assert done.returncode == 0


@given(st.lists(st.floats(-3, 3), min_size=7, max_size=7))
@settings(max_examples=50)
def test_gripper_becomes_binary_and_the_rest_stays(values):
    checked = checked_action(values)
    assert checked[6] == (1 if values[6] > 0 else -1)
    assert checked[:6].tolist() == values[:6]


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        (np.zeros(6), r"\(7,\)"),
        (np.zeros((1, 7)), r"\(7,\)"),
        ([0, 0, np.nan, 0, 0, 0, 1], "finite"),
        ([0, 0, np.inf, 0, 0, 0, 1], "finite"),
        (["a"] * 7, "7 numbers"),
        (None, "finite|shape"),
    ],
)
def test_bad_action_is_refused_and_changes_nothing(action, complaint, env):
    before = env.robot_obs
    with pytest.raises(UserError, match=complaint):
        env.step(action)
    env.reset(seed=0)
    assert np.array_equal(env.robot_obs, before)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"robot_obs": np.zeros(14)}, r"robot_obs: shape \(15,\)"),
        ({"scene_obs": np.zeros(23)}, r"scene_obs: shape \(24,\)"),
        ({"robot_obs": np.full(15, np.inf)}, "robot_obs.*finite"),
        ({"scene_obs": np.full(24, np.nan)}, "scene_obs.*finite"),
        ({"scene_obs": np.full(24, 0.5)}, "0 or 1"),
        ({"state": np.zeros(3)}, "unknown options"),
    ],
)
def test_bad_start_state_is_refused(options, complaint, env):
    with pytest.raises(UserError, match=complaint):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"scene": "E"}, "no scene 'E'.*builtin"),
        ({"renderer": "opengl"}, "no renderer 'opengl'.*depth"),
        ({"led_reset": "tail"}, "led_reset"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_unknown_choice_is_an_error_that_lists_what_there_is(arguments, complaint, make_env):
    with pytest.raises(UserError, match=complaint):
        make_env(**arguments)


def test_unknown_camera_is_an_error(env):
    with pytest.raises(UserError, match="static, gripper"):
        env.render_camera("wrist")
