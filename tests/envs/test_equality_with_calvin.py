"""The real simulator's traces are reproduced: states, tasks and images."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.tasks import detect

NAMES = [
    "A_random",
    "B_random",
    "C_random",
    "D_lift_blue",
    "D_light_on",
    "D_open_drawer",
    "D_press_button",
    "D_push_red",
    "D_random",
    "D_render",
]


def start_of(trace):
    return {"robot_obs": trace["reset_robot_obs"], "scene_obs": trace["reset_scene_obs"]}


@pytest.mark.parametrize("name", NAMES)
def test_trace_of_the_real_simulator_is_reproduced_with_its_tasks(
    name, traces, calvin_assets, make_env
):
    trace = traces[name]
    env = make_env(str(trace["scene"]), calvin_assets, renderer="tiny")
    observation, _ = env.reset(options=start_of(trace))
    start = env.info()
    states, tasks = [observation], []
    for action in trace["rel_actions"]:
        states.append(env.step(action)[0])
        tasks.append(",".join(sorted(detect(start, env.info()))))
    for key in ("robot_obs", "scene_obs"):
        found = np.stack([state[key] for state in states])
        np.testing.assert_allclose(found, trace[key], rtol=0, atol=1e-9, err_msg=f"{name} {key}")
    assert tasks == [",".join(sorted(str(seen).split(","))) for seen in trace["tasks"]]


def test_a_used_world_repeats_a_contact_rich_trace_to_the_bit(traces, calvin_assets, make_env):
    env = make_env("D", calvin_assets, renderer="tiny")
    for name in ("D_random", "D_push_red", "D_light_on", "D_random"):
        observation, _ = env.reset(options=start_of(traces[name]))
        for action in traces[name]["rel_actions"]:
            observation = env.step(action)[0]
        assert np.array_equal(observation["scene_obs"], traces[name]["scene_obs"][-1]), name


def test_tiny_renderer_draws_the_images_of_the_real_simulator(traces, calvin_assets, make_env):
    trace = traces["D_render"]
    env = make_env("D", calvin_assets, renderer="tiny")
    env.reset(options=start_of(trace))
    for step in range(len(trace["rel_actions"]) + 1):
        if step:
            env.step(trace["rel_actions"][step - 1])
        for index in np.flatnonzero(trace["render_step"] == step):
            for camera in ("static", "gripper"):
                rgb, depth = env.render_camera(camera)
                np.testing.assert_allclose(depth, trace[f"depth_{camera}"][index], rtol=1e-6)
                assert np.array_equal(rgb, trace[f"rgb_{camera}"][index])


@pytest.mark.parametrize("renderer", ["depth", "tiny"])
def test_looking_does_not_change_what_happens(renderer, traces, calvin_assets, make_env):
    trace = traces["D_push_red"]
    env = make_env("D", calvin_assets, renderer=renderer)
    env.reset(options=start_of(trace))
    for index, action in enumerate(trace["rel_actions"][:24]):
        env.step(action)
        if index % 8 == 0:
            env.observe(cameras=("gripper",), point_cloud=True)
            env.info()
    assert np.array_equal(env.robot_obs, trace["robot_obs"][24])
    assert np.array_equal(env.scene_obs, trace["scene_obs"][24])
