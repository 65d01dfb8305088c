"""What a batch holds, and that training and validation stay apart."""

import os

import numpy as np
import pytest
import torch

from benchmarks.stores import write_store
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config, Normalizer
from langsteer.policies.dp3.config import FRAMES_AHEAD
from langsteer.training import calvin_dataset
from langsteer.training.calvin_dataset import CalvinData, diffusion_draws, train_loader
from langsteer.training.config import TrainingDatasetConfig
from langsteer.training.pytorch_util import to_device
from langsteer.training.sampler import Schedule

POLICY = DP3Config()


def open_data(path, policy=POLICY, seed=0, **changes):
    return CalvinData(open_store(path), policy, TrainingDatasetConfig(**changes), seed)


@pytest.fixture
def many_episodes(tmp_path, store_factory):
    """Twenty episodes without an official validation split."""
    return store_factory(tmp_path / "many.zarr", [20] * 20, ["training"] * 20)


def test_batch_holds_the_two_observation_frames_alone(tiny_store):
    data = open_data(tiny_store)
    batch = data.batch(data.train, np.arange(4))
    assert batch["obs"]["point_cloud"].shape == (4, 2, 32, 3)
    assert batch["obs"]["agent_pos"].shape == (4, 2, 15)
    assert batch["action"].shape == (4, 16, 7)


def test_batch_is_what_the_store_says(tiny_store):
    data, store = open_data(tiny_store), open_store(tiny_store)
    clouds, states, actions = (store.read(name) for name in ("point_cloud", "state", "action"))
    index = np.array([0, 5, len(data.train) - 1])
    batch = data.batch(data.train, index)
    for row, window in enumerate(index):
        start, end = data.train.start[window], data.train.end[window]
        frames = np.clip(data.train.first[window] + np.arange(16), start, end - 1)
        np.testing.assert_array_equal(batch["obs"]["point_cloud"][row], clouds[frames[:2], :, :3])
        np.testing.assert_array_equal(batch["obs"]["agent_pos"][row], states[frames[:2]])
        np.testing.assert_array_equal(batch["action"][row], actions[frames])


def test_colour_is_read_where_the_policy_sees_it(tiny_store):
    data = open_data(tiny_store, DP3Config(use_pc_color=True))
    batch = data.batch(data.train, np.array([3]))
    clouds = open_store(tiny_store).read("point_cloud")
    frames = data.train.first[3] + np.arange(2)
    np.testing.assert_array_equal(batch["obs"]["point_cloud"][0], clouds[frames])


def test_foresight_is_told_the_hands_place_later_in_the_same_episode(tiny_store):
    data = open_data(tiny_store, DP3Config(attention_heads=3, foresight=0.1))
    last = len(data.train) - 1
    ahead = data._hand_ahead(np.array([0, last]))
    states = open_store(tiny_store).read("state")
    present = data.train.first + data.policy.n_obs_steps - 1
    for row, window in enumerate((0, last)):
        end = data.train.end[window] - 1
        frames = [min(present[window] + later, end) for later in FRAMES_AHEAD]
        np.testing.assert_array_equal(ahead[row], states[frames][:, :3])


def test_zero_motion_tail_stops_the_arm_and_keeps_the_gripper(tiny_store):
    repeated = open_data(tiny_store).batch(open_data(tiny_store).train, np.arange(83))["action"]
    data = open_data(tiny_store, tail="zero_motion")
    stopped = data.batch(data.train, np.arange(83))["action"]
    frames = data.train.first[:, None] + np.arange(16)
    behind = torch.from_numpy(frames >= data.train.end[:, None])
    assert behind.any()
    assert (stopped[behind][:, :6] == 0).all()
    assert torch.equal(stopped[..., 6], repeated[..., 6])
    assert torch.equal(stopped[~behind], repeated[~behind])


def test_official_validation_split_is_used_and_never_trained_on(tiny_store):
    data = open_data(tiny_store)
    assert data.official_validation
    assert data.val_episodes.tolist() == [5]
    assert data.train_rows().max() < open_store(tiny_store).episode_starts[5]


def test_normalizer_sees_training_frames_alone(tmp_path, store_factory):
    path = store_factory(tmp_path / "s.zarr", [20, 20], ["training", "validation"])
    from langsteer.data.zarr_arrays import open_array

    action = open_array(path, "action", write=True)
    action[25].write(np.full(7, 99.0, np.float32)).result()
    data = open_data(path)
    rows = data.train_rows()
    normalizer = Normalizer.fit(POLICY, data.buffer.states[rows], data.buffer.actions[rows])
    limits = normalizer.action.unnormalize(torch.ones(7))
    assert limits.max() <= 1.0


def test_validation_does_not_depend_on_max_train_episodes(many_episodes):
    few = open_data(many_episodes, val_ratio=0.2, max_train_episodes=3)
    all_of_them = open_data(many_episodes, val_ratio=0.2)
    assert len(few.train_episodes) == 3
    assert few.val_episodes.tolist() == all_of_them.val_episodes.tolist()
    assert len(few.val_episodes) == 4
    assert not set(all_of_them.train_episodes) & set(all_of_them.val_episodes)


@pytest.mark.parametrize("seed", range(5))
def test_episodes_that_share_frames_of_the_source_stay_on_one_side(tmp_path, seed):
    lengths, groups = np.array([20] * 9), np.array([0, 0, 0, 1, 1, 2, 3, 3, 4])
    ends = np.cumsum(lengths)
    random = np.random.default_rng(0)
    arrays = {
        "point_cloud": random.random((ends[-1], 4, 6), dtype=np.float32),
        "state": random.random((ends[-1], 15), dtype=np.float32),
        "action": random.random((ends[-1], 7), dtype=np.float32),
    }
    table = EpisodeTable(
        split=np.array(["training"] * 9),
        task=np.array([""] * 9),
        instruction=np.array([""] * 9),
        first_frame=ends - lengths,
        group=groups,
    )
    write_store(tmp_path / "s.zarr", arrays, ends, table, ObservationPipeline(n_points=4))
    data = open_data(tmp_path / "s.zarr", seed=seed, val_ratio=0.4)
    assert not set(groups[data.train_episodes]) & set(groups[data.val_episodes])
    assert len(data.val_episodes)


def test_store_without_training_episodes_is_an_error(tmp_path, store_factory):
    path = store_factory(tmp_path / "s.zarr", [20], ["validation"])
    with pytest.raises(UserError, match="none of its 1 episodes is for training"):
        open_data(path)


def test_episodes_shorter_than_a_window_are_an_error(tmp_path, store_factory):
    path = store_factory(tmp_path / "s.zarr", [7, 5], ["training", "training"])
    with pytest.raises(UserError, match="too short for a single window \\(8 frames\\)"):
        open_data(path, val_ratio=0.0)


def test_points_kept_on_a_device_are_those_of_the_store(tiny_store):
    data = open_data(tiny_store)
    rows = np.array([[0, 1], [7, 90]])
    from_store = data.buffer.points(rows)
    data.buffer.move_points_to(torch.device("cpu"), data.used_rows())
    places = torch.from_numpy(data.buffer.places(rows))
    assert torch.equal(data.buffer.device_points(places), torch.tensor(from_store))
    batch = data.batch(data.train, np.arange(3))
    assert batch["obs"]["places"].shape == (3, 2)
    assert "point_cloud" not in batch["obs"]


def test_points_of_episodes_that_nobody_uses_take_no_memory_of_the_device(many_episodes):
    data = open_data(many_episodes, max_train_episodes=3)
    expected = [
        data.batch(w, np.arange(len(w)))["obs"]["point_cloud"] for w in (data.train, data.val)
    ]
    rows = data.used_rows()
    assert len(rows) == 20 * (3 + len(data.val_episodes))
    data.buffer.move_points_to(torch.device("cpu"), rows)
    assert len(data.buffer._on_device) == len(rows)
    for windows, clouds in zip((data.train, data.val), expected, strict=True):
        moved = to_device(
            data.batch(windows, np.arange(len(windows))), torch.device("cpu"), data.buffer
        )
        assert torch.equal(moved["obs"]["point_cloud"], clouds)


def test_one_loader_gives_all_epochs_in_the_order_of_each(tiny_store):
    data = open_data(tiny_store)
    schedule = Schedule(len(data.train), batch_size=16, accumulation=2, seed=3)
    found = list(train_loader(data, schedule, epoch=1, first_step=2, num_epochs=4, num_workers=0))
    single = [*schedule.epoch(1, 2), *schedule.epoch(2), *schedule.epoch(3)]
    assert len(found) == len(single)
    for batch, micro in zip(found, single, strict=True):
        expected = data.train_batch(micro, schedule.seed)
        assert torch.equal(batch["action"], expected["action"])
        assert torch.equal(batch["noise"], expected["noise"])
        assert batch["last"] == expected["last"]


@pytest.mark.parametrize(
    ("keys", "cores", "workers"),
    [
        (["training.num_workers=8"], 4, 3),
        (["training.num_workers=8", "training.points_on_device=true"], 4, 1),
        (["training.num_workers=0", "training.points_on_device=true"], 4, 0),
        (["training.num_workers=8"], 1, 0),
    ],
)
def test_loader_has_no_more_workers_than_it_can_use(training, monkeypatch, keys, cores, workers):
    """Points that lie on the device are most of a batch: one worker reads the rest."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    assert f"; {workers} loader workers" in training.here(*keys, "training.num_epochs=1")


class OwnPid(CalvinData):
    """In place of data: a batch tells which process made it."""

    def __init__(self):
        pass

    def train_batch(self, micro, seed):
        return {"pid": os.getpid(), "epoch": micro.epoch}


def test_loader_keeps_its_workers_from_epoch_to_epoch():
    schedule = Schedule(n_windows=6, batch_size=2, accumulation=1, seed=0)
    batches = list(train_loader(OwnPid(), schedule, 0, 0, num_epochs=4, num_workers=1))
    assert [batch["epoch"] for batch in batches] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    (worker,) = {batch["pid"] for batch in batches}
    assert worker != os.getpid()


def test_workers_of_a_loader_that_is_left_in_the_middle_end():
    """They ignore SIGTERM, by which Python would end them at its exit, and would then wait."""
    schedule = Schedule(n_windows=6, batch_size=2, accumulation=1, seed=0)
    batches = train_loader(OwnPid(), schedule, 0, 0, num_epochs=4, num_workers=1)
    worker = next(batches)["pid"]
    batches.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("ranks", [1, 3])
def test_noise_of_a_window_depends_on_its_place_in_the_step_alone(tiny_store, ranks, monkeypatch):
    """However many ranks there are, and without one of them drawing for all."""
    monkeypatch.setattr(calvin_dataset, "DRAWN_AT_ONCE", 8)
    data, drawn = open_data(tiny_store), []

    def counted(policy, count, seed):
        drawn.append(count)
        return diffusion_draws(policy, count, seed)

    whole, *_ = Schedule(len(data.train), 48, 1, seed=5).epoch(2)
    expected, _ = data._own_draws(diffusion_draws, whole, 5)
    for rank in range(ranks):
        schedule = Schedule(len(data.train), 48 // ranks, 1, 5, rank, ranks)
        micro, *_ = schedule.epoch(2)
        drawn.clear()
        noise, _ = data._own_draws(counted, micro, 5)
        np.testing.assert_array_equal(noise, expected[micro.positions])
        assert sum(drawn) <= len(micro.positions) + 2 * 8


def test_noise_of_the_first_block_has_the_seed_of_the_step(tiny_store):
    """What runs of older versions drew, which may be resumed."""
    data = open_data(tiny_store)
    micro, *_ = Schedule(len(data.train), 16, 1, seed=5).epoch(2)
    noise, timesteps = diffusion_draws(POLICY, 16, [5, 2, 0])
    batch = data.train_batch(micro, 5)
    np.testing.assert_array_equal(batch["noise"], noise[micro.positions, 0])
    np.testing.assert_array_equal(batch["timesteps"], timesteps[micro.positions, 0])
