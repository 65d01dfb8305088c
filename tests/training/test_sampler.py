"""The order of training: a pure function of (seed, epoch, step), whoever asks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.training.sampler import Schedule, make_windows

HORIZON, BEFORE, AFTER = 16, 1, 7

schedules = st.fixed_dictionaries(
    {
        "n_windows": st.integers(1, 70),
        "batch_size": st.integers(1, 9),
        "accumulation": st.integers(1, 4),
        "seed": st.integers(0, 5),
    }
)
epochs = st.integers(0, 3)


def step_contents(arguments, world_size, epoch):
    """Windows of each step by their place in it, and the sum of the shares."""
    contents: dict[int, dict[int, int]] = {}
    shares: dict[int, float] = {}
    for rank in range(world_size):
        for micro in Schedule(**arguments, rank=rank, world_size=world_size).epoch(epoch):
            shares[micro.step] = shares.get(micro.step, 0.0) + micro.share
            if micro.share:
                places = dict(zip(micro.positions.tolist(), micro.windows.tolist(), strict=True))
                assert not places.keys() & contents.setdefault(micro.step, {}).keys()
                contents[micro.step] |= places
    return contents, shares


@settings(max_examples=60)
@given(schedules, st.integers(1, 4), epochs)
def test_every_window_occurs_once_per_epoch_over_all_ranks(arguments, world_size, epoch):
    contents, shares = step_contents(arguments, world_size, epoch)
    seen = [window for places in contents.values() for window in places.values()]
    assert sorted(seen) == list(range(arguments["n_windows"]))
    np.testing.assert_allclose(list(shares.values()), 1.0)


@settings(max_examples=60)
@given(schedules, st.integers(1, 4), epochs)
def test_ranks_and_micro_batches_do_not_change_what_a_step_learns_from(
    arguments, world_size, epoch
):
    parts = world_size * arguments["accumulation"]
    alone = arguments | {"batch_size": arguments["batch_size"] * parts, "accumulation": 1}
    assert step_contents(arguments, world_size, epoch)[0] == step_contents(alone, 1, epoch)[0]


@settings(max_examples=40)
@given(schedules, epochs, st.integers(0, 80))
def test_order_from_a_step_on_is_the_rest_of_the_epoch(arguments, epoch, first_step):
    schedule = Schedule(**arguments)
    rest = [micro for micro in schedule.epoch(epoch) if micro.step >= first_step]
    resumed = schedule.epoch(epoch, first_step)
    assert [m.windows.tolist() for m in resumed] == [m.windows.tolist() for m in rest]
    assert [m.last for m in resumed] == [m.last for m in rest]


@settings(max_examples=40)
@given(schedules, epochs)
def test_each_step_ends_with_exactly_one_optimizer_step(arguments, epoch):
    """So no gradient of an epoch's remainder leaks into the next epoch."""
    schedule = Schedule(**arguments)
    batches = schedule.epoch(epoch)
    assert sum(micro.last for micro in batches) == schedule.steps_per_epoch
    assert batches[-1].last


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [Schedule(50, 4, 1, seed).order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_windows_are_as_many_as_the_references():
    """3000 frames in 50 episodes give 2650 windows, L - 7 of each episode."""
    ends = np.arange(60, 3001, 60)
    assert len(make_windows(ends - 60, ends, HORIZON, BEFORE, AFTER)) == 2650


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_windows_repeat_the_ends_of_their_episode_and_never_leave_it(lengths):
    ends = np.cumsum(lengths)
    starts = ends - lengths
    windows = make_windows(starts, ends, HORIZON, BEFORE, AFTER)
    assert len(windows) == sum(max(0, length - 7) for length in lengths)
    rows = windows.rows(np.arange(len(windows)), np.arange(HORIZON))
    expected = [
        [min(max(first + step, start), end - 1) for step in range(HORIZON)]
        for start, end in zip(starts, ends, strict=True)
        for first in range(start - BEFORE, end - HORIZON + AFTER + 1)
    ]
    assert rows.tolist() == expected
