"""The block that a task is about is found in every scene, whatever the order of its blocks."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.scenes import BLOCK_NAMES
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.steering.blocks import KnownScene, block_place

RED, BLUE, PINK = (0.1, -0.1, 0.46), (0.2, 0.08, 0.46), (-0.1, -0.05, 0.6)


def known(names, **places):
    poses = np.zeros((3, 6))
    for colour, place in places.items():
        poses[names.index(f"block_{colour}"), :3] = place
    return KnownScene(np.concatenate([np.zeros(6), poses.ravel()]), names)


@pytest.mark.parametrize("scene", BLOCK_NAMES)
def test_order_of_blocks_is_the_environments_own(scene, assets_of):
    env = CalvinEnv(scene, assets_of(scene))
    assert env.block_names == BLOCK_NAMES[scene]
    env.close()


@pytest.mark.parametrize("names", BLOCK_NAMES.values(), ids=BLOCK_NAMES)
def test_a_task_means_the_same_block_in_every_scene(names):
    scene = known(names, red=RED, blue=BLUE, pink=PINK)
    for task, place in (
        ("push_red_block_left", RED),
        ("lift_blue_block_slider", BLUE),
        ("rotate_pink_block_right", PINK),
        ("stack_block", RED),  # pink is held above, and red nearer to it than blue
        ("unstack_block", PINK),
        ("push_into_drawer", RED),
    ):
        found = block_place(task, scene)
        assert found is not None
        assert tuple(found[:3]) == place


def test_tasks_about_no_block_that_lies_need_no_scene_and_others_are_refused():
    for task in ("open_drawer", "turn_on_led", "place_in_drawer", "place_in_slider"):
        assert block_place(task, None) is None
    for task in ("stack_block", "push_into_drawer", "lift_red_block_table"):
        with pytest.raises(UserError, match=r"steering\.privileged=true"):
            block_place(task, None)
