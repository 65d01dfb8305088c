"""The experts solve their tasks, by the oracle, with actions that a policy could give."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pybullet")

from langsteer.calvin.benchmark import (
    SLIDER_PLACES,
    initial_observations,
    initial_states,
    is_feasible,
    successors,
)
from langsteer.calvin.kinematics import GRIPPER_WIDTH
from langsteer.calvin.scene_obs import DRAWER_RANGE, SLIDER_RANGE, SceneObs
from langsteer.calvin.task import COLOURS, SIDES, TASKS
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.experts.library import SKILLED_TASKS, make_skill
from langsteer.experts.motion import Hand, Move
from langsteer.experts.play import feasible_tasks, symbolic_state
from langsteer.experts.recording import Performer
from langsteer.experts.starts import benchmark_robot_obs, sample_scene
from langsteer.experts.view import View


@pytest.fixture(scope="module")
def performer():
    return Performer(CalvinEnv("builtin", renderer="tiny"), images=False)


def test_there_is_an_expert_for_every_task():
    assert set(SKILLED_TASKS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_an_expert_does_its_task_in_two_of_three_starts(performer, task):
    episodes = [performer.single(task, np.random.default_rng([7, seed])) for seed in range(3)]
    assert sum(task in episode.achieved for episode in episodes) >= 2
    for episode in episodes:
        assert len(episode.robot_obs) == len(episode.infos) == episode.n_frames + 1


@pytest.mark.parametrize("side", SIDES)
def test_an_expert_lifts_each_block_where_the_benchmark_puts_it_in_the_cabinet(performer, side):
    for colour in COLOURS:
        task, rng = f"lift_{colour}_block_slider", np.random.default_rng(0)
        hand = performer._begin(initial_observations(_in_cabinet(colour, side))[1], rng)
        assert performer.attempt(task, hand, rng), colour


@pytest.mark.parametrize("side", SIDES)
def test_starts_surround_the_benchmarks_place_in_the_cabinet(performer, side):
    state, rng = _in_cabinet("red", side), np.random.default_rng(0)
    scenes = [SceneObs(sample_scene(state, performer.layout, rng)) for _ in range(200)]
    red = performer.layout.colours.index("red")
    places = np.array([scene.blocks[red, :2] for scene in scenes])
    wanted = np.array(SLIDER_PLACES[f"slider_{side}"][:2])
    assert (places.min(axis=0) < wanted).all()
    assert (places.max(axis=0) > wanted).all()


def _in_cabinet(colour, side):
    place = f"slider_{side}"
    return next(
        state
        for state in initial_states()
        if state[f"{colour}_block"] == place
        and is_feasible(state, (f"lift_{colour}_block_slider",))
    )


PLACES = st.sampled_from(
    [
        (0.0, -0.1, 0.46),  # on the table
        (0.2, -0.05, 0.46),
        (0.0, -0.1, 0.51),  # on a block
        (-0.2, 0.12, 0.46),  # in the cabinet
        (0.2, 0.12, 0.46),
        (0.1, -0.25, 0.36),  # in the drawer
        (0.0, -0.7, 0.1),  # fallen off the table
    ]
)


@given(
    places=st.tuples(PLACES, PLACES, PLACES),
    parts=st.tuples(*[st.sampled_from([0.0, 1.0])] * 2),
    opening=st.sampled_from([0.0, 0.04, 0.08]),
)
def test_an_expert_starts_or_gives_up_wherever_a_driver_left_the_blocks(
    performer, places, parts, opening
):
    scene = SceneObs.at_rest(slider=parts[0] * SLIDER_RANGE, drawer=parts[1] * DRAWER_RANGE)
    scene.blocks[:, :3] = places
    robot_obs = benchmark_robot_obs()
    robot_obs[GRIPPER_WIDTH] = opening
    for task in TASKS:
        rng = np.random.default_rng(0)
        skill = make_skill(task, Hand(robot_obs[:3], robot_obs[3:6], rng), rng)
        action = skill.act(View(performer.layout, robot_obs, scene.vector))
        assert action is None or np.isfinite(action).all()


def test_the_same_seed_gives_the_same_episode(performer):
    first, again = (
        performer.single("lift_blue_block_table", np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(first.robot_obs, again.robot_obs)
    assert np.array_equal(first.scene_obs, again.scene_obs)


def test_an_episode_depends_on_nothing_that_its_world_has_seen():
    with contextlib.closing(CalvinEnv("builtin", renderer="tiny")) as env:
        episodes = [
            Performer(env, images=False).single(task, np.random.default_rng(5))
            for task in ("lift_blue_block_table", "open_drawer", "lift_blue_block_table")
        ]
    assert np.array_equal(episodes[0].scene_obs, episodes[2].scene_obs)
    assert np.array_equal(episodes[0].robot_obs, episodes[2].robot_obs)


def test_episodes_differ_in_start_path_and_length(performer):
    episodes = [performer.single("open_drawer", np.random.default_rng(seed)) for seed in range(6)]
    assert len({episode.n_frames for episode in episodes}) > 2
    starts = np.array([episode.robot_obs[0][:3] for episode in episodes])
    assert (np.ptp(starts, axis=0) > 0.05).all()


def test_play_goes_from_one_feasible_task_to_the_next(performer):
    episode = performer.play(TASKS, 5, np.random.default_rng(1))
    assert len(episode.attempted) == 5
    assert len(episode.achieved) >= 4
    assert len(set(episode.attempted)) > 1


def test_play_never_tries_what_the_scene_does_not_allow(performer):
    performer.play(TASKS, 2, np.random.default_rng(2))
    view = performer._view()
    state = symbolic_state(view)
    for task in feasible_tasks(view, TASKS):
        assert successors(state, task)


def test_a_hand_stays_within_what_an_action_may_be_and_arrives():
    rng = np.random.default_rng(0)
    hand = Hand(np.zeros(3), np.array([3.1, 0.0, 1.5]), rng, tempo=2.0, tremor=0.002)
    move = Move((0.3, -0.2, 0.4), (-3.1, 0.3, 0.2), speed=1.0, radius=0.004)
    taken: list[np.ndarray] = []
    while not hand.has_reached(move) and len(taken) < 300:
        taken.append(hand.toward(move))
    assert hand.has_reached(move)
    actions = np.array(taken)
    assert np.abs(actions[:, :6]).max() <= 1
    # The commanded pose is the sum of the actions; roll went the short way, over pi.
    assert np.allclose(actions[:, :3].sum(axis=0) * 0.02, hand.position)
    assert hand.euler[0] > np.pi


def test_an_unknown_task_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="open_drawer"):
        make_skill("open_drawers", Hand(np.zeros(3), np.zeros(3), rng), rng)
