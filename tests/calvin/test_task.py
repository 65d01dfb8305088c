"""A task's parts and its name say the same, and a `SceneObs` shares its memory."""

import numpy as np
import pytest

from langsteer.calvin.scene_obs import DRAWER_RANGE, SCENE_OBS_SIZE, SceneObs
from langsteer.calvin.task import ALL_TASKS, BLOCKS, COLOURS, SIDES, SURFACES, TASKS, Task
from langsteer.errors import UserError


def test_there_are_34_tasks_with_names_of_their_own():
    assert len(set(TASKS)) == len(TASKS) == 34


@pytest.mark.parametrize("task", ALL_TASKS, ids=TASKS)
def test_a_name_holds_every_part_and_no_other_colour_side_or_surface(task):
    assert Task.named(task.name) is task
    words = task.name.split("_")
    assert task.name.startswith(task.verb)
    assert [word for word in words if word in COLOURS] == [task.colour] * bool(task.colour)
    assert [word for word in words if word in SIDES] == [task.side] * bool(task.side)
    if task.about == "block":
        assert [word for word in words if word in SURFACES] == [task.surface] * bool(task.surface)
    else:
        assert task.about in words and not task.surface


def test_a_block_is_named_as_the_scene_names_it():
    assert {task.block for task in ALL_TASKS if task.colour} == set(BLOCKS)
    with pytest.raises(AssertionError, match="stack_block names no block"):
        _ = Task.named("stack_block").block


def test_an_unknown_name_brings_the_nearest_ones():
    with pytest.raises(UserError, match=r"no task 'open_drawr'.*open_drawer"):
        Task.named("open_drawr")


def test_a_scene_obs_reads_and_writes_the_vector_itself():
    scene = SceneObs(np.arange(SCENE_OBS_SIZE, dtype=np.float64))
    assert (scene.slider, scene.drawer, scene.button, scene.switch) == (0.0, 1.0, 2.0, 3.0)
    assert scene.blocks.tolist() == [[*range(6, 12)], [*range(12, 18)], [*range(18, 24)]]
    scene.blocks[1, :3] = 0.5
    scene.lights[:] = 0.0, 1.0
    assert scene.vector[12:15].tolist() == [0.5, 0.5, 0.5]
    assert (scene.lightbulb, scene.led) == (False, True)


def test_a_scene_at_rest_has_what_is_given_and_zeros():
    vector = SceneObs.at_rest(drawer=DRAWER_RANGE, led=1.0).vector
    assert vector.shape == (SCENE_OBS_SIZE,)
    assert dict(zip(np.flatnonzero(vector).tolist(), vector[vector != 0], strict=True)) == {
        1: DRAWER_RANGE,
        5: 1.0,
    }
