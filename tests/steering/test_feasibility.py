"""An instruction for what cannot be done from here is refused, with the reason."""

import numpy as np
import pytest

from langsteer.calvin.task import TASKS
from langsteer.errors import UserError
from langsteer.steering.feasibility import require_feasible, why_infeasible

pytest.importorskip("pybullet")


@pytest.fixture(scope="module")
def scene_info():
    from langsteer.envs.calvin_env import CalvinEnv

    env = CalvinEnv("builtin", renderer="tiny")

    def info(**values):
        env.reset(seed=0)
        scene = env.scene_obs
        for index, name in enumerate(("slider", "drawer", "button", "switch", "lightbulb", "led")):
            scene[index] = values.get(name, 0.0)
        scene[6:9], scene[12:15], scene[18:21] = [
            values.get(name, default)
            for name, default in (
                ("red", (0.1, -0.12, 0.46)),
                ("blue", (0.25, -0.12, 0.46)),
                ("pink", (-0.24, 0.09, 0.461)),
            )
        ]
        scene[9:12] = scene[15:18] = scene[21:24] = (0, 0, np.pi / 2)
        env.reset(options={"scene_obs": scene})
        for _ in range(5):
            env.step([0, 0, 0, 0, 0, 0, 1])
        return env.info()

    yield info
    env.close()


CLOSED = ("open_drawer", "move_slider_left", "turn_on_lightbulb", "turn_on_led")
OPEN = ("close_drawer", "move_slider_right", "turn_off_lightbulb", "turn_off_led")


def test_what_is_closed_can_be_opened_and_not_closed(scene_info):
    closed = scene_info()
    opened = scene_info(slider=0.28, drawer=0.22, switch=0.088, lightbulb=1.0, led=1.0)
    for task, opposite in zip(CLOSED, OPEN, strict=True):
        assert why_infeasible(task, closed) is None
        assert why_infeasible(opposite, opened) is None
        for scene, wrong in ((closed, opposite), (opened, task)):
            with pytest.raises(UserError, match=f"{wrong} cannot be done here"):
                require_feasible(wrong, scene)


def test_blocks_are_lifted_only_from_where_they_lie(scene_info):
    scene = scene_info()
    assert why_infeasible("lift_red_block_table", scene) is None
    assert why_infeasible("lift_pink_block_slider", scene) is None
    for task, place in (("lift_red_block_drawer", "drawer"), ("lift_pink_block_table", "table")):
        assert f"does not lie on the {place}" in (why_infeasible(task, scene) or "")


def test_what_needs_a_held_or_a_stacked_block_or_an_open_drawer_says_so(scene_info):
    scene = scene_info()
    assert why_infeasible("place_in_drawer", scene) == "no block is held"
    assert why_infeasible("unstack_block", scene) == "no block lies on another"
    assert why_infeasible("push_into_drawer", scene) == "the drawer is closed"
    assert why_infeasible("push_into_drawer", scene_info(drawer=0.22)) is None
    stacked = scene_info(blue=(0.1, -0.12, 0.5))
    assert why_infeasible("unstack_block", stacked) is None


def test_every_task_is_judged_and_an_unknown_one_is_refused(scene_info):
    scene = scene_info()
    feasible = [task for task in TASKS if why_infeasible(task, scene) is None]
    assert {"push_red_block_left", "rotate_blue_block_right", "stack_block"} <= set(feasible)
    with pytest.raises(UserError, match="no task"):
        why_infeasible("open_draw", scene)
