"""CALVIN's rule for annotated windows."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.calvin.tasks import BlockInfo, SceneInfo
from langsteer.experts.annotate import TAIL, WINDOW, events, windows

TABLE_ONLY = frozenset([("table", "base_link")])
BLOCKS = {
    name: BlockInfo((x, 0.0, 0.46), (0.0, 0.0, 0.0, 1.0), (0.0,) * 3, (0.0,) * 3, TABLE_ONLY)
    for name, x in (("block_red", -0.2), ("block_blue", 0.0), ("block_pink", 0.2))
}
CLOSED = SceneInfo(0.0, 0.0, 0.0, 0.0, False, False, BLOCKS, frozenset())
OPEN = replace(CLOSED, drawer=0.2)


@settings(max_examples=25)
@given(frames=st.integers(20, 130), done=st.integers(1, 129))
def test_windows_have_calvins_lengths_and_end_within_16_frames_of_the_completion(frames, done):
    infos = [OPEN if frame >= done else CLOSED for frame in range(frames)]
    for window in windows(infos):
        assert window.task == "open_drawer"
        assert 0 <= window.start < done < window.end <= frames
        assert window.end - window.start in {WINDOW, *range(33, 49)}
        assert 0 < window.end - done < TAIL


@pytest.mark.parametrize("done", [20, 48, 49, 63, 64, 100])
def test_a_completion_in_the_middle_of_a_recording_is_annotated_once(done):
    infos = [OPEN if frame >= done else CLOSED for frame in range(done + 30)]
    (event,) = events(windows(infos))
    longest = max(window.end - window.start for window in event)
    assert longest == (WINDOW if done >= 49 else min(48, done + TAIL - 1))


def test_two_tasks_in_one_window_are_not_annotated():
    both = replace(OPEN, led=True)
    assert windows([CLOSED] * 60 + [both] * 20) == []


def test_opening_and_closing_are_two_events():
    infos = [CLOSED] * 70 + [OPEN] * 80 + [CLOSED] * 30
    assert [event[0].task for event in events(windows(infos))] == ["open_drawer", "close_drawer"]
