"""The oracle: hand-made snapshots on both sides of each rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from langsteer.calvin.task import TASKS
from langsteer.calvin.tasks import BlockInfo, SceneInfo, achieved, detect
from langsteer.errors import UserError

TABLE_TOP = ("table", "base_link")
DRAWER = ("table", "drawer_link")
PLANK = ("table", "plank_link")
FINGER = ("robot", "panda_leftfinger")


def yaw(degrees):
    half = np.radians(degrees) / 2
    return (0.0, 0.0, float(np.sin(half)), float(np.cos(half)))


def block(
    position=(0.0, 0.0, 0.46), contacts=(TABLE_TOP,), quaternion=(0.0, 0.0, 0.0, 1.0), speed=0.0
):
    return BlockInfo(
        tuple(position), tuple(quaternion), (speed, 0.0, 0.0), (0.0, 0.0, 0.0), frozenset(contacts)
    )


def scene(red=None, blue=None, pink=None, robot=(), **parts):
    values: dict[str, Any] = {"slider": 0.0, "drawer": 0.0, "button": 0.0, "switch": 0.0}
    values |= {"lightbulb": False, "led": False} | parts
    blocks = {
        "block_red": red or block(),
        "block_blue": blue or block((0.2, 0.0, 0.46)),
        "block_pink": pink or block((-0.2, 0.0, 0.46)),
    }
    return SceneInfo(blocks=blocks, robot_contacts=frozenset(robot), **values)


def test_tasks_are_those_of_calvin_in_its_order(shared):
    path = shared / "calvin_assets/benchmark/new_playtable_tasks.yaml"
    assert list(TASKS) == list(yaml.safe_load(path.read_text())["tasks"])


def test_nothing_is_detected_between_equal_snapshots():
    assert detect(scene(), scene()) == set()


@pytest.mark.parametrize(
    ("task", "part", "before", "enough", "short"),
    [
        ("open_drawer", "drawer", 0.0, 0.121, 0.119),
        ("close_drawer", "drawer", 0.2, 0.079, 0.081),
        ("move_slider_left", "slider", 0.0, 0.151, 0.149),
        ("move_slider_right", "slider", 0.28, 0.129, 0.131),
        ("turn_on_led", "led", False, True, False),
        ("turn_off_led", "led", True, False, True),
        ("turn_on_lightbulb", "lightbulb", False, True, False),
        ("turn_off_lightbulb", "lightbulb", True, False, True),
    ],
)
def test_articulated_tasks_change_at_their_thresholds(task, part, before, enough, short):
    start = scene(**{part: before})
    assert detect(start, scene(**{part: enough})) == {task}
    assert detect(start, scene(**{part: short})) == set()


def product(first, second):
    """Hamilton product of two quaternions (x, y, z, w)."""
    (a, b, c, d), (e, f, g, h) = first, second
    return (
        d * e + a * h + b * g - c * f,
        d * f - a * g + b * h + c * e,
        d * g + a * f - b * e + c * h,
        d * h - a * e - b * f - c * g,
    )


@given(
    degrees=st.floats(-179, 179).filter(lambda angle: abs(abs(angle) - 60) > 1e-6),
    tilt=st.floats(-40, 40).filter(lambda angle: abs(abs(angle) - 30) > 1e-6),
    first=st.floats(-180, 180),
)
def test_rotation_is_the_turn_in_the_world_whatever_the_first_yaw(degrees, tilt, first):
    half = np.radians(tilt) / 2
    about_x = (float(np.sin(half)), 0.0, 0.0, float(np.cos(half)))
    end = product(product(yaw(degrees), about_x), yaw(first))
    found = detect(scene(red=block(quaternion=yaw(first))), scene(red=block(quaternion=end)))
    expected = set()
    if abs(tilt) < 30 and abs(degrees) > 60:
        expected = {"rotate_red_block_left" if degrees > 0 else "rotate_red_block_right"}
    assert found == expected


def test_rotation_needs_a_support_and_little_travel():
    start = scene()
    turned = block(quaternion=yaw(90))
    assert achieved(start, scene(red=turned), "rotate_red_block_left")
    for spoilt in (
        replace(turned, contacts=frozenset([FINGER])),
        replace(turned, position=(0.101, 0, 0.46)),
    ):
        assert not achieved(start, scene(red=spoilt), "rotate_red_block_left")


@given(distance=st.floats(-0.3, 0.3))
def test_push_is_travel_along_x(distance):
    found = detect(scene(), scene(red=block((distance, 0.05, 0.46))))
    expected = set()
    if abs(distance) > 0.1:
        expected = {"push_red_block_right" if distance > 0 else "push_red_block_left"}
    assert found == expected


def test_push_keeps_the_first_support():
    start = scene(red=block(contacts=[PLANK]))
    assert achieved(
        start, scene(red=block((0.2, 0, 0.46), [PLANK, TABLE_TOP, FINGER])), "push_red_block_right"
    )
    assert not achieved(start, scene(red=block((0.2, 0, 0.46))), "push_red_block_right")
    airborne = scene(red=block(contacts=[FINGER]))
    assert not achieved(airborne, scene(red=block((0.2, 0, 0.46))), "push_red_block_right")


@pytest.mark.parametrize(
    ("surface", "link", "height"),
    [("table", TABLE_TOP, 0.05), ("slider", PLANK, 0.03), ("drawer", DRAWER, 0.05)],
)
@pytest.mark.parametrize("colour", ["red", "blue", "pink"])
def test_lift_is_from_its_surface_in_the_grip_alone(colour, surface, link, height):
    start = scene(**{colour: block((0, 0, 0.46), [link])})

    def lifted(rise, contacts):
        return detect(start, scene(**{colour: block((0, 0, 0.46 + rise), contacts)}))

    assert lifted(height + 0.001, [FINGER]) == {f"lift_{colour}_block_{surface}"}
    assert lifted(height - 0.001, [FINGER]) == set()
    assert lifted(0.2, [FINGER, link]) == set()
    assert lifted(0.2, []) == set()


@pytest.mark.parametrize(
    ("task", "link"), [("place_in_slider", PLANK), ("place_in_drawer", DRAWER)]
)
def test_place_starts_in_the_grip_and_ends_out_of_it(task, link):
    held = block((0, 0, 0.6), [FINGER])
    start = scene(red=held, robot=[("block_red", "base")])
    lying = scene(red=block(contacts=[link]))
    assert detect(start, lying) == {task}
    assert not achieved(
        start, replace(lying, robot_contacts=frozenset([("block_red", "base")])), task
    )
    touching_more = replace(start, robot_contacts=frozenset([("block_red", "base"), TABLE_TOP]))
    assert not achieved(touching_more, lying, task)
    dragged = scene(red=block(contacts=[FINGER, TABLE_TOP]), robot=[("block_red", "base")])
    assert not achieved(dragged, lying, task)


def test_stack_and_unstack_mirror_each_other():
    apart = scene(red=block((0, 0, 0.6), [FINGER]), robot=[("block_red", "base")])
    stacked = scene(
        red=block((0.2, 0, 0.5), [("block_blue", "base")]),
        blue=block((0.2, 0, 0.46), [TABLE_TOP, ("block_red", "base")]),
    )
    assert achieved(apart, stacked, "stack_block")
    assert achieved(stacked, apart, "unstack_block")
    falling = replace(
        stacked,
        blocks={
            **stacked.blocks,
            "block_red": replace(stacked.blocks["block_red"], angular_velocity=(0.0, -1.5, 0.0)),
        },
    )
    assert not achieved(apart, falling, "stack_block")
    assert not achieved(falling, apart, "unstack_block")
    leaning = scene(red=block((0.2, 0, 0.5), [("block_blue", "base"), TABLE_TOP]))
    assert not achieved(apart, leaning, "stack_block")


def test_push_into_drawer_starts_on_the_table_alone():
    start = scene()
    inside = scene(red=block((0.1, -0.2, 0.38), [DRAWER]))
    assert achieved(start, inside, "push_into_drawer")
    assert not achieved(scene(red=block(contacts=[TABLE_TOP, FINGER])), inside, "push_into_drawer")


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match="open_drawer"):
        achieved(scene(), scene(), "opn_drawer")
