"""Steering a policy: nothing at zero strength, nearer with more, ranked, composed, recorded."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from langsteer.calvin.task import BLOCKS
from langsteer.configuration import config_folder
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.steering.blocks import KnownScene
from langsteer.steering.config import SteeringConfig, Strength
from langsteer.steering.demonstrations import (
    Demonstration,
    DemonstrationLibrary,
    open_library,
)
from langsteer.steering.steerer import Steerer
from langsteer.steering.waypoints import ARTICULATED, waypoints

CONF = config_folder()
TASK = "open_drawer"
ROBOT_OBS = np.array([0.03, -0.23, 0.57, 3.09, -0.03, 1.5, 0.08, *[0.1] * 7, 1.0])
REFERENCE = SteeringConfig("reference", reference=1.0, strength=1.0, demonstrations="unused.npz")


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    config = DP3Config(
        down_dims=(16, 32), n_groups=4, point_widths=(8, 16), prediction="preconditioned"
    )
    policy = DP3(config)
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(config, random.normal(size=(50, 15)), actions))
    return policy.eval()


@pytest.fixture(scope="module")
def obs():
    cloud = torch.rand(1, 2, 40, 3, generator=torch.Generator().manual_seed(0))
    return {"point_cloud": cloud, "agent_pos": torch.from_numpy(ROBOT_OBS).float().expand(1, 2, -1)}


def straight(task, direction, steps=40, offset=0.0):
    actions = np.zeros((steps, 7))
    actions[:, :3], actions[:, 6] = direction, -1.0
    start = ROBOT_OBS[:6].copy()
    start[0] += offset
    return Demonstration.from_actions(task, start, actions)


@pytest.fixture(scope="module")
def library():
    return DemonstrationLibrary(
        [straight(TASK, (0, 0.5, -0.5)), straight(TASK, (0, -0.5, -0.5), offset=0.3),
         straight("close_drawer", (0.5, 0, 0))],
        "test",
    )  # fmt: skip


def predict(policy, obs, library, config, task=TASK, seed=3, times=1, scene_obs=None):
    steerer = Steerer(config, library)
    known = None if scene_obs is None else KnownScene(scene_obs, BLOCKS)
    steerer.begin(task, ROBOT_OBS[:6], seed=5, scene=known)
    generator = torch.Generator().manual_seed(seed)
    actions = [steerer.predict(policy, obs, generator) for _ in range(times)]
    return np.concatenate(actions), steerer


def unsteered(policy, obs, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return policy.predict_action(obs, generator=generator)["action"][0].numpy()


def test_zero_strength_equals_no_steering_to_the_bit(policy, obs, library):
    plain = unsteered(policy, obs)
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"repetitions": 3},
        {"value_map": 1.0},
        # The gradient's machinery runs, and each step is left unguided.
        {"strength": 1.0, "start": 10},
        {"strength": 1.0, "unguided_last": 10, "repetitions": 2},
    )
    for changes in cases:
        config = dataclasses.replace(REFERENCE, **{"strength": 0.0, **changes})
        actions, steerer = predict(policy, obs, library, config)
        np.testing.assert_array_equal(actions, plain)
        assert steerer.calls.gradients == 0
    actions, _ = predict(policy, obs, None, SteeringConfig())
    np.testing.assert_array_equal(actions, plain)


@pytest.mark.parametrize("changes", [{}, {"repetitions": 3}])
def test_stronger_guidance_comes_nearer_to_the_reference(policy, obs, library, changes):
    energies = []
    for strength in (1e-9, 0.3, 1.0):
        config = dataclasses.replace(REFERENCE, strength=strength, unguided_last=0, **changes)
        _, steerer = predict(policy, obs, library, config)
        energies.append(steerer.trace.energies[0])
    assert energies[0] > energies[1] > energies[2]


def test_guidance_follows_the_demonstration_that_begins_nearest(policy, obs, library):
    config = dataclasses.replace(REFERENCE, unguided_last=0, candidates=1)
    _, steerer = predict(policy, obs, library, config)
    away = steerer.trace.paths[0, -1, :3] - ROBOT_OBS[:3]
    assert away[1] > 0.03  # along +y, as the near demonstration; the far one goes along -y
    _, other = predict(policy, obs, library, config, task="close_drawer")
    assert other.trace.paths[0, -1, 0] - ROBOT_OBS[0] > 0.03


def test_best_of_n_executes_the_lowest_energy_and_the_first_sample_is_the_policys_own(
    policy, obs, library
):
    config = dataclasses.replace(REFERENCE, strength=0.0, samples=8)
    actions, steerer = predict(policy, obs, library, config)
    trace = steerer.trace
    assert len(trace.energies) == 8
    assert trace.chosen == trace.energies.argmin()
    assert trace.energies.min() < trace.energies.max()
    executed = trace.paths[trace.chosen, 7, :3] - ROBOT_OBS[:3]
    np.testing.assert_allclose(actions[:, :3].sum(axis=0) * 0.02, executed, atol=1e-5)
    own = unsteered(policy, obs)[:, :3].sum(axis=0) * 0.02
    np.testing.assert_allclose(trace.paths[0, 7, :3] - ROBOT_OBS[:3], own, atol=1e-5)


def test_a_gradient_a_guided_step_and_denoiser_calls_for_repetitions_only(policy, obs, library):
    config = dataclasses.replace(REFERENCE, start=1)
    _, steerer = predict(policy, obs, library, config)
    assert (steerer.calls.gradients, steerer.calls.denoiser) == (7, 0)
    config = dataclasses.replace(config, repetitions=3, samples=2)
    _, steerer = predict(policy, obs, library, config, times=2)
    assert (steerer.calls.gradients, steerer.calls.denoiser) == (2 * 7 * 3, 2 * 7 * 2)


def test_same_seed_same_prediction(policy, obs, library):
    config = dataclasses.replace(REFERENCE, repetitions=2, samples=4)
    first, _ = predict(policy, obs, library, config, times=3)
    again, _ = predict(policy, obs, library, config, times=3)
    np.testing.assert_array_equal(first, again)


def test_no_noise_is_drawn_twice(policy, obs, library, monkeypatch):
    drawn, randn = [], torch.randn

    def remember(*args, **kwargs):
        drawn.append(randn(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn", remember)
    config = dataclasses.replace(REFERENCE, repetitions=2, samples=4)
    for seed in (0, 5):
        drawn.clear()
        steerer, generator = Steerer(config, library), torch.Generator().manual_seed(seed)
        steerer.begin(TASK, ROBOT_OBS[:6], seed=seed)
        for _ in range(2):
            steerer.predict(policy, obs, generator)
        trajectories = torch.cat(drawn).flatten(1)
        assert len(trajectories) == 2 * (4 + 8 * 4)
        assert len(trajectories.unique(dim=0)) == len(trajectories)


def test_the_reference_goes_on_even_where_the_hand_stands_still(policy, obs):
    dwelling = DemonstrationLibrary([straight(TASK, (0, 0, 0), steps=60)], "test")
    _, steerer = predict(policy, obs, dwelling, REFERENCE, times=4)
    assert steerer._begun.sources[0].followed[0].phase >= 15
    _, steerer = predict(policy, obs, dwelling, REFERENCE, times=20)
    assert steerer._begun.sources[0].followed[0].phase == 60


def test_objectives_compose(policy, obs, library):
    config = dataclasses.replace(REFERENCE, value_map=0.5)
    both, steerer = predict(policy, obs, library, config)
    alone, _ = predict(policy, obs, library, REFERENCE)
    assert not np.array_equal(both, alone)
    assert np.isfinite(steerer.trace.energies).all()


@pytest.mark.parametrize("task", ARTICULATED)
def test_value_map_leads_towards_its_first_place(policy, obs, task):
    config = SteeringConfig("value_map", value_map=1.0, strength=1.0, unguided_last=0, avoidance=0)
    _, steerer = predict(policy, obs, None, config, task=task)
    goal = waypoints(task)[0][:3]
    reached = steerer.trace.paths[0, -1, :3]
    assert np.linalg.norm(goal - reached) < 0.7 * np.linalg.norm(goal - ROBOT_OBS[:3])


def test_value_map_reads_the_simulator_only_when_allowed(policy, obs):
    scene = np.zeros(24)
    scene[1] = 0.1
    config = SteeringConfig("value_map", value_map=1.0, strength=1.0)
    results = [
        predict(policy, obs, None, dataclasses.replace(config, privileged=allowed), scene_obs=state)
        for allowed, state in ((False, None), (False, scene), (True, scene))
    ]
    blind, unread, read = (actions for actions, _ in results)
    np.testing.assert_array_equal(blind, unread)
    assert not np.array_equal(unread, read)
    assert dataclasses.replace(config, privileged=True).to_dict()["privileged"] is True


LIFT = "lift_blue_block_table"


def scene_with_blue_block(x, y, yaw):
    scene = np.zeros(24)
    scene[12:18] = x, y, 0.46, 0.0, 0.0, yaw
    return scene


def reach_for(place, steps=40):
    """A demonstration that goes straight to above a block at ``place`` (4,)."""
    actions = np.zeros((steps, 7))
    actions[:, :3] = (np.array([*place[:2], 0.5]) - ROBOT_OBS[:3]) / (0.02 * steps)
    return Demonstration.from_actions(LIFT, ROBOT_OBS[:6], actions, np.array(place))


def test_reference_is_shifted_to_where_the_block_lies(policy, obs):
    library = DemonstrationLibrary([reach_for((0.1, -0.1, 0.46, 1.5))], "test")
    config = dataclasses.replace(REFERENCE, unguided_last=0, privileged=True)
    ends = []
    for x in (0.0, 0.1, 0.2):
        scene = scene_with_blue_block(x, -0.1, 1.5)
        _, steerer = predict(policy, obs, library, config, LIFT, times=8, scene_obs=scene)
        (followed,) = steerer._begun.sources[0].followed
        np.testing.assert_allclose(followed.demonstration.poses[-1, :3], [x, -0.1, 0.5], atol=1e-9)
        ends.append(steerer._begun.hand.pose[0])
    assert ends[0] < ends[1] - 0.05 < ends[2] - 0.1


def test_demonstration_with_the_block_turned_alike_is_followed_and_the_hand_turned(policy, obs):
    shown = [reach_for((0.1, -0.1, 0.46, yaw)) for yaw in (1.2, 1.9)]
    config = dataclasses.replace(REFERENCE, candidates=1, privileged=True)
    for yaw, chosen, turn in ((1.3, 0, 0.1), (1.3 + np.pi, 0, 0.1), (1.8, 1, -0.1)):
        scene = scene_with_blue_block(0.1, -0.1, yaw)
        library = DemonstrationLibrary(shown, "test")
        _, steerer = predict(policy, obs, library, config, LIFT, scene_obs=scene)
        poses = steerer._begun.sources[0].followed[0].demonstration.poses
        turned = shown[chosen].poses + np.array([0, 0, 0, 0, 0, turn, 0])
        np.testing.assert_allclose(poses, turned, atol=1e-12)


def test_places_of_a_lift_close_the_fingers_where_the_block_is_and_rise(policy, obs):
    scene = scene_with_blue_block(0.1, -0.1, 1.5 - np.pi)
    above, at, closed, up = waypoints(LIFT, None, scene[[12, 13, 14, 17]])
    np.testing.assert_allclose(above[:2], [0.1, -0.1])
    assert above[2] > at[2] == closed[2] < up[2]
    assert [pose[6] for pose in (above, at, closed, up)] == [1, 1, -1, -1]
    np.testing.assert_allclose(at[5], 1.5)  # half turned, as the arm comes nearer
    config = SteeringConfig("v", value_map=1.0, strength=1.0, unguided_last=0, privileged=True)
    _, steerer = predict(policy, obs, None, config, LIFT, times=30, scene_obs=scene)
    assert len(steerer._begun.sources[0].waypoints) == 1  # all passed, the closing one too
    np.testing.assert_allclose(steerer._begun.hand.pose[:3], up[:3], atol=0.03)


def test_a_named_block_is_refused_where_the_scene_may_not_be_read(policy, obs, library):
    for config in (REFERENCE, SteeringConfig("v", value_map=1.0, strength=1.0)):
        with pytest.raises(UserError, match=r"blue block.*steering.privileged=true"):
            predict(policy, obs, library, config, LIFT, scene_obs=np.zeros(24))


def test_strength_follows_its_schedule_between_start_and_end():
    strength = Strength(2.0, "rising", start=2, unguided_last=2)
    values = [strength.at(index, 10) for index in range(10)]
    assert values[:2] == [0, 0]
    assert values[-2:] == [0, 0]
    assert all(low < high for low, high in itertools.pairwise(values[2:8]))


def test_a_saved_library_is_the_same(library, tmp_path):
    library.save(tmp_path / "library.npz")
    opened = open_library(tmp_path / "library.npz")
    assert opened.tasks == library.tasks == ("close_drawer", TASK)
    for one, other in zip(library.of(TASK), opened.of(TASK), strict=True):
        np.testing.assert_array_equal(one.poses, other.poses)
        assert one.block is other.block is None
    held = reach_for((0.1, -0.1, 0.46, 1.5))
    DemonstrationLibrary([held], "test").save(tmp_path / "blocks.npz")
    (opened_held,) = open_library(tmp_path / "blocks.npz").of(LIFT)
    np.testing.assert_array_equal(opened_held.block, held.block)


def test_a_library_of_a_calvin_folder_sums_up_its_actions(make_calvin, tmp_path):
    from langsteer.calvin.dataset import frame_name

    root = make_calvin(
        tmp_path, {"training": ([(0, 30)], [(5, 15, TASK, "x"), (18, 28, "close_drawer", "y")])}
    )
    library = open_library(root)
    assert len(library) == 2
    (one,) = library.of(TASK)
    assert len(one) == 18  # from the recording's beginning to the next task's window
    (two,) = library.of("close_drawer")
    assert len(two) == 31 - 15
    frames = [np.load(root / "training" / frame_name(number)) for number in range(18)]
    ways = np.cumsum([frame["rel_actions"][:3] for frame in frames], axis=0) * 0.02
    np.testing.assert_allclose(one.poses[1:, :3] - frames[0]["robot_obs"][:3], ways, atol=1e-7)


def test_demonstrations_of_overlapping_windows_take_nothing_of_each_others_tasks(
    make_calvin, tmp_path
):
    windows = [(5, 20, TASK, "x"), (12, 28, "close_drawer", "y")]
    library = open_library(make_calvin(tmp_path, {"training": ([(0, 30)], windows)}))
    (one,), (two,) = library.of(TASK), library.of("close_drawer")
    assert len(one) == 20  # to its window's end
    assert len(two) == 31 - 12  # from its window's beginning


def test_missing_and_damaged_demonstrations_are_told(library, tmp_path):
    with pytest.raises(UserError, match="collect_demos"):
        open_library(tmp_path / "nothing.npz")
    library.save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    flipped = whole[:400] + bytes(100) + whole[500:]
    for content in (b"PK nothing", b"", whole[: len(whole) // 2], flipped, array):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match="not a library"):
            open_library(tmp_path / "bad.npz")
    with pytest.raises(UserError, match="close_drawer, open_drawer"):
        Steerer(REFERENCE, library).begin("turn_on_led", ROBOT_OBS[:6])
    with pytest.raises(UserError, match="knows no places"):
        Steerer(SteeringConfig(value_map=1.0, strength=1.0)).begin("place_in_slider", ROBOT_OBS[:6])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strenght": 1.0}, "steering.strength"),
        ({"strength": "much"}, "expected a number from 0 on"),
        ({"strength": 1.0}, "need an objective"),
        ({"strength": 1.0, "reference": 1.0}, "steering.demonstrations: missing"),
        ({"samples": 0}, "from 1 on"),
        ({"strength": -1.0}, "from 0 on"),
        ({"strength": float("nan")}, "from 0 on"),
        ({"avoidance": float("inf")}, "from 0 on"),
        ({"schedule": "wavy"}, "constant, rising, falling"),
        ({"samples": True}, "expected a whole number"),
    ],
)
def test_bad_configuration_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        SteeringConfig.from_dict(values)


@pytest.mark.parametrize("path", sorted((CONF / "steering").glob("*.yaml")), ids=lambda p: p.stem)
def test_configurations_in_conf_are_valid(path):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        composed = compose("train", [f"+steering={path.stem}"])
    values: Any = OmegaConf.to_container(composed.steering)
    assert set(values) == set(SteeringConfig().to_dict())
    assert SteeringConfig.from_dict({**values, "demonstrations": "some"}).name == path.stem
