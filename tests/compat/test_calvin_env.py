"""calvin_env's own interface: what the real environment did on the traces, it does here."""

import subprocess
import sys

import numpy as np
import pytest
import yaml

pytest.importorskip("pybullet")

from langsteer.calvin.benchmark import chains, initial_observations
from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.calvin.task import TASKS
from langsteer.calvin.tasks import detect
from langsteer.compat.calvin_env import (
    PlayTableSimEnv,
    get_env,
    get_env_state_for_initial_condition,
    get_sequences,
)
from langsteer.compat.calvin_tasks import Tasks, scene_info
from langsteer.errors import UserError

STATES: dict[str, list[str]] = {"rgb_obs": [], "depth_obs": []}
STILL = [0, 0, 0, 0, 0, 0, 1]


@pytest.fixture
def make(calvin_assets):
    """Makes environments and closes them after the test."""
    made = []

    def make(scene="builtin", **settings) -> PlayTableSimEnv:
        made.append(get_env(scene=scene, assets_path=calvin_assets, **settings))
        return made[-1]

    yield make
    for env in made:
        env.close()


def replay(env, trace, actions):
    """States (T + 1) and the tasks that the oracle sees after each action."""
    oracle = Tasks()
    states = [env.reset(trace["reset_robot_obs"], trace["reset_scene_obs"])]
    start, tasks = env.get_info(), []
    for action in actions:
        obs, reward, done, info = env.step(action)
        assert (reward, done) == (0, False)
        states.append(obs)
        tasks.append(",".join(sorted(oracle.get_task_info(start, info))))
    return states, tasks


def assert_same_states(states, trace):
    for key in ("robot_obs", "scene_obs"):
        found = np.stack([state[key] for state in states])
        assert np.array_equal(found, trace[key]), key


@pytest.mark.parametrize("name", ["A_random", "D_lift_blue", "D_press_button", "D_light_on"])
def test_relative_actions_do_to_the_bit_what_they_did_in_the_real_environment(name, traces, make):
    trace = traces[name]
    env = make(f"calvin_scene_{trace['scene']}", obs_space=STATES)
    states, tasks = replay(env, trace, trace["rel_actions"])
    assert_same_states(states, trace)
    assert tasks == [",".join(sorted(str(seen).split(","))) for seen in trace["tasks"]]


@pytest.mark.parametrize("form", ["triple", "quaternion", "cartesian_abs", "flat"])
def test_absolute_actions_follow_the_formula_of_the_relative_ones(form, traces, make):
    trace = traces["D_open_drawer"]
    env = make("D", obs_space=STATES)
    env.reset(trace["reset_robot_obs"], trace["reset_scene_obs"])
    position, euler = np.split(env.env.commanded_pose, 2)
    actions = []
    for action in trace["rel_actions"]:
        position = position + action[:3] * METRES_PER_UNIT
        euler = euler + action[3:6] * RADIANS_PER_UNIT
        actions.append(in_form(form, position, euler, int(action[6])))
    states, _ = replay(env, trace, actions)
    # robot_obs and scene_obs of the real environment under the relative actions.
    assert_same_states(states, trace)


def in_form(form, position, euler, gripper):
    import pybullet

    if form == "triple":
        return position, euler, gripper
    if form == "quaternion":
        return position, pybullet.getQuaternionFromEuler(euler), [gripper]
    if form == "cartesian_abs":
        return {"type": "cartesian_abs", "action": (position, euler, gripper)}
    return {"type": "cartesian_abs", "action": np.array([*position, *euler, gripper])}


def test_an_absolute_action_leaves_the_target_of_relative_ones_alone(make):
    env = make(obs_space=STATES)
    env.reset()
    target = env.env.commanded_pose
    env.step((target[:3] + 0.05, target[3:], 1))
    assert np.array_equal(env.env.commanded_pose, target)


def test_joint_actions_reach_their_angles(make):
    env = make(obs_space=STATES)
    start = env.reset()["robot_obs"][7:14]
    goal = start + 0.05
    for _ in range(20):
        obs, *_ = env.step({"type": "joint_abs", "action": [*goal, -1]})
    np.testing.assert_allclose(obs["robot_obs"][7:14], goal, atol=2e-3)
    assert obs["robot_obs"][14] == -1
    for _ in range(3):
        obs, *_ = env.step({"type": "joint_rel", "action": [*np.zeros(7), 1]})
    np.testing.assert_allclose(obs["robot_obs"][7:14], goal, atol=4e-3)


def test_images_are_those_of_the_real_environment(traces, make):
    trace = traces["D_render"]
    env = make("D", renderer="tiny")
    obs = env.reset(trace["reset_robot_obs"], trace["reset_scene_obs"])
    for action in trace["rel_actions"][: trace["render_step"][0]]:
        obs, *_ = env.step(action)
    for camera in ("static", "gripper"):
        assert np.array_equal(obs["rgb_obs"][f"rgb_{camera}"], trace[f"rgb_{camera}"][0])
        np.testing.assert_allclose(
            obs["depth_obs"][f"depth_{camera}"], trace[f"depth_{camera}"][0], rtol=1e-6
        )
    assert np.array_equal(env.render(mode="rgb_array"), obs["rgb_obs"]["rgb_static"])


def test_information_says_what_the_oracle_view_says(traces, make):
    trace = traces["D_push_red"]
    env = make("D", obs_space=STATES)
    env.reset(trace["reset_robot_obs"], trace["reset_scene_obs"])
    start, raw_start = env.env.info(), env.get_info()
    for action in trace["rel_actions"]:
        env.step(action)
        raw, seen = scene_info(env.get_info()), env.env.info()
        assert detect(scene_info(raw_start), raw) == detect(start, seen)
        for name, block in seen.blocks.items():
            assert raw.blocks[name].touched_bodies - {"body 6"} == block.touched_bodies - {"floor"}


def test_rules_of_the_official_file_are_the_oracles(calvin_assets):
    path = calvin_assets / "conf" / "tasks" / "new_playtable_tasks.yaml"
    official = yaml.safe_load(path.read_text())["tasks"]
    oracle = Tasks(official)
    assert set(oracle.tasks) == set(TASKS) and oracle.num_tasks == 34
    assert oracle.id_to_task[oracle.task_to_id["open_drawer"]] == "open_drawer"
    with pytest.raises(UserError, match=r"open_drawer.*0\.2.*0\.12"):
        Tasks({"open_drawer": ["move_door_rel", "base__drawer", 0.2]})
    with pytest.raises(UserError, match="no task 'fly'"):
        Tasks({"fly": ["move_door_rel"]})


def test_sequences_and_starts_are_the_benchmarks():
    sequences = get_sequences(3)
    assert [tasks for _, tasks in sequences] == [chain.tasks for chain in chains(3)]
    for (state, _), chain in zip(sequences, chains(3), strict=True):
        for found, expected in zip(
            get_env_state_for_initial_condition(state),
            initial_observations(chain.initial_state),
            strict=True,
        ):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        ([*STILL[:6], 0.3], r"gripper 0\.3.*1 \(open\) or -1"),
        (([0, 0, 0], [0, 0, 0], 0), "gripper"),
        (STILL[:6], r"shape \(7,\)"),
        (([0, 0], [0, 0, 0], 1), r"position.*\(3,\)"),
        (([0, 0, 0], [0, 0, np.nan], 1), "orientation.*finite"),
        ({"type": "cartesian_abs", "action": np.zeros(6)}, r"shape \(6,\)"),
        ({"type": "velocity", "action": STILL}, "velocity.*cartesian_rel"),
    ],
)
def test_action_that_the_real_environment_would_refuse_is_refused(action, complaint, make):
    env = make(obs_space=STATES)
    with pytest.raises(UserError, match=complaint):
        env.step(action)


def test_environment_of_a_dataset_has_its_scene_and_cameras(shared, calvin_assets, make):
    env = get_env(shared / "calvin_sample" / "validation", assets_path=calvin_assets)
    try:
        assert env.env.config.name == "D" and env.env.renderer_name == "tiny"
        assert set(env.get_obs()["rgb_obs"]) == {"rgb_static", "rgb_gripper"}
    finally:
        env.close()
    with pytest.raises(UserError, match="dataset_path or scene"):
        get_env()
    with pytest.raises(UserError, match="no window"):
        make(show_gui=True)
    with pytest.raises(UserError, match="tactile"):
        make(obs_space={"rgb_obs": ["rgb_tactile"], "depth_obs": []})


def test_code_written_for_calvin_env_imports_this_simulator():
    code = """
from langsteer.compat import calvin_env
calvin_env.install()
calvin_env.install()
import pyhash
from calvin_env.envs.play_table_env import get_env, PlayTableSimEnv
import calvin_env.envs.tasks
import hydra
oracle = hydra.utils.instantiate({"_target_": "calvin_env.envs.tasks.Tasks", "tasks": None})
assert oracle.num_tasks == 34 and pyhash.fnv1_32()("test") == 3910690890
env = get_env(scene="builtin", obs_space={"rgb_obs": [], "depth_obs": []})
assert isinstance(env, PlayTableSimEnv) and env.reset()["robot_obs"].shape == (15,)
env.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
