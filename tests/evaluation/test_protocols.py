"""The papers' judges and starts are those of the papers' code."""

import numpy as np
import pytest

from langsteer.calvin.scene_obs import SceneObs
from langsteer.configuration import compose
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.attempts import sample_starts
from langsteer.evaluation.comparison import NAME, ComparisonSettings
from langsteer.evaluation.protocol_starts import paper_scene
from langsteer.evaluation.protocols import PROTOCOLS, behaviour_of
from langsteer.evaluation.rollout import TaskRun, run_task
from langsteer.experts.starts import benchmark_robot_obs
from langsteer.experts.view import read_layout

NAMES = ("block_red", "block_blue", "block_pink")


def verdict(protocol, task, *, gripper=-1.0, hand=(9, 9, 9), block=None, **parts):
    """The verdict where these parts moved from 0, and the red block by ``block`` metres."""
    start, now = SceneObs.at_rest(), SceneObs.at_rest(**parts)
    if block is not None:
        now.blocks[0, 0] = block
    robot_obs = np.zeros(15)
    robot_obs[:3], robot_obs[14] = hand, gripper
    run = TaskRun(task, scene_obs=[start.vector, now.vector], robot_obs=[robot_obs, robot_obs])
    return PROTOCOLS[protocol].judge_of(task, NAMES)(run)


@pytest.mark.parametrize(
    ("protocol", "task", "parts", "expected"),
    [
        ("dynaguide", "open_drawer", {"drawer": 0.051}, True),
        ("dynaguide", "open_drawer", {"drawer": 0.05}, None),
        ("dynaguide", "close_drawer", {"drawer": 0.051}, False),
        ("dynaguide", "move_slider_left", {"slider": 0.051, "drawer": 0.2}, True),
        ("dynaguide", "open_drawer", {"slider": 0.051, "drawer": 0.2}, False),
        ("dynaguide", "turn_on_lightbulb", {"switch": 0.021}, True),
        ("dynaguide", "turn_on_led", {"led": 1}, True),
        ("dynaguide", "turn_on_led", {"block": 0.002, "hand": (0, 0, 0), "led": 1}, False),
        ("dynaguide", "push_red_block_left", {"block": 0.002, "hand": (0, 0, 0.09)}, True),
        ("dynaguide", "push_red_block_left", {"block": 0.002, "hand": (0, 0, 0.11)}, None),
        ("dynaguide", "lift_blue_block_table", {"block": 0.002, "hand": (0, 0, 0)}, False),
        ("vls", "open_drawer", {"drawer": 0.097}, True),
        ("vls", "open_drawer", {"drawer": 0.095}, None),
        ("vls", "close_drawer", {"drawer": 0.097}, None),
        ("vls", "move_slider_left", {"slider": 0.244}, True),
        ("vls", "move_slider_left", {"slider": 0.2}, None),
        ("vls", "turn_on_lightbulb", {"switch": 0.057}, True),
        ("vls", "turn_on_led", {"led": 1, "drawer": 0.2}, True),
        ("vls", "open_drawer", {"led": 1, "drawer": 0.2}, None),
        ("vls", "push_red_block_left", {"block": 0.006, "hand": (0, 0, 0.05)}, True),
        ("vls", "push_red_block_left", {"block": 0.006, "hand": (0, 0, 0), "gripper": 1}, None),
    ],
)
def test_verdict_is_that_of_the_papers_code(protocol, task, parts, expected):
    assert verdict(protocol, task, **parts) is expected


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        (["protocol=calvin"], 360),
        (["protocol=dynaguide"], 400),
        (["protocol=vls"], 200),
        (["protocol=vls", "max_steps=17"], 17),
    ],
)
def test_an_attempt_has_the_steps_of_its_protocol_unless_told_others(keys, steps):
    values = compose(NAME, ["checkpoint=x", *keys])
    del values["steering"], values["methods"]
    values |= {"encoder": "lexical", "plugin": None}
    assert ComparisonSettings.from_dict(values).max_steps == steps


def test_task_that_the_papers_lack_is_refused():
    with pytest.raises(UserError, match="stack_block is none of the papers' behaviours"):
        behaviour_of("stack_block")


def test_wrong_behaviour_ends_an_attempt_with_dynaguide_alone():
    assert verdict("dynaguide", "turn_on_led", slider=0.28) is False
    assert verdict("vls", "turn_on_led", slider=0.28) is None


def test_judge_ends_an_attempt_in_the_oracles_place():
    pytest.importorskip("pybullet")
    env = CalvinEnv()
    try:
        env.reset(seed=0)
        judges = {"failed": lambda run: False, "done": lambda run: run.steps == 3 or None}
        runs = {
            name: run_task(env, StandStill(), "open_drawer", 4, judge=judge)
            for name, judge in judges.items()
        }
    finally:
        env.close()
    assert (runs["failed"].steps, runs["failed"].success) == (1, False)
    assert (runs["done"].steps, runs["done"].success) == (3, True)


class StandStill:
    """Moves nothing."""

    n_obs_steps, sees_colours = 1, False

    def reset(self, seed=0): ...

    def instruct(self, sentence): ...

    def observe(self, observation): ...

    def act(self, observation):
        return np.tile(np.array([0, 0, 0, 0, 0, 0, 1], np.float32), (8, 1))


ARTICULATED = [
    *("open_drawer", "close_drawer", "move_slider_left", "move_slider_right"),
    *("turn_on_lightbulb", "turn_off_lightbulb", "turn_on_led", "turn_off_led"),
]


@pytest.fixture(scope="module")
def layout():
    env = CalvinEnv("builtin")
    yield read_layout(env)
    env.close()


def scenes(protocol, task, layout, count=6):
    randoms = (np.random.default_rng(seed) for seed in range(count))
    return [SceneObs(paper_scene(protocol, task, layout, random)) for random in randoms]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", ARTICULATED)
def test_the_part_asked_for_can_move_at_every_papers_start(protocol, task, layout):
    asked = behaviour_of(task)
    for scene in scenes(protocol, task, layout):
        assert bool(getattr(scene, asked.thing)) != asked.forward
        assert scene.lightbulb == bool(scene.switch)


def test_the_other_parts_stand_at_random_for_dynaguide_and_fixed_for_vls(layout):
    found = {
        protocol: {tuple(scene.joints[:2]) for scene in scenes(protocol, "turn_on_led", layout, 20)}
        for protocol in PROTOCOLS
    }
    assert found["dynaguide"] == {(0, 0), (0.27, 0), (0, 0.16), (0.27, 0.16)}
    assert found["vls"] == {(0, 0.15)}


def test_blocks_lie_on_the_table_but_for_dynaguides_articulated_behaviours(layout):
    def in_cabinet(protocol, task):
        return any((scene.blocks[:, 1] > 0).any() for scene in scenes(protocol, task, layout))

    assert in_cabinet("dynaguide", "open_drawer")
    assert not in_cabinet("dynaguide", "push_red_block_left")
    assert not in_cabinet("vls", "open_drawer")
    assert not any(scene.slider for scene in scenes("dynaguide", "push_red_block_left", layout))


def test_a_papers_start_is_of_one_task_and_tasks_take_turns():
    env = CalvinEnv("builtin")
    starts = sample_starts(env, ARTICULATED[:2], 3, seed=0, together=False, protocol="vls")
    env.close()
    assert [start.tasks[0] for start in starts] == ["open_drawer", "close_drawer", "open_drawer"]
    # VLS's hand stays where CALVIN's benchmark has it.
    assert np.linalg.norm(starts[0].robot_obs[:3] - benchmark_robot_obs()[:3]) < 0.01
