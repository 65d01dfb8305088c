"""The frames of a recording that show a task: CALVIN's own rule for its annotations.

CALVIN looks at windows of 64 frames. Take a frame 16 to 31 after a window's beginning. The window
is annotated with a task if exactly one task is done from that frame to the last one, and was not
yet done 16 frames before the end. The window is cut down to begin at that frame, unless the task
also counts from its first frame and nothing was done in the first half. So annotated windows have
64 or 33 to 48 frames, and the task is completed in the last 16.

Example::

    for window in windows(infos): print(window.task, window.start, window.end)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from langsteer.calvin.tasks import SceneInfo, achieved, detect

WINDOW = 64
TAIL = 16
MIDDLES = range(16, 32)


@dataclass(frozen=True)
class Window:
    """Frames ``start`` to ``end`` - 1 show ``task``; counted from 0 in the episode."""

    task: str
    start: int
    end: int


class _Oracle:
    """The oracle on pairs of frames, asked once for each pair."""

    def __init__(self, infos: Sequence[SceneInfo]) -> None:
        self._infos = infos
        self._known: dict[tuple[int, int], frozenset[str]] = {}

    def done(self, first: int, last: int) -> frozenset[str]:
        """The tasks done between two frames."""
        pair = (first, last)
        if pair not in self._known:
            self._known[pair] = frozenset(detect(self._infos[first], self._infos[last]))
        return self._known[pair]

    def is_done(self, first: int, last: int, task: str) -> bool:
        """Whether one task was done between two frames."""
        if (first, last) in self._known:
            return task in self._known[first, last]
        return achieved(self._infos[first], self._infos[last], task)


def windows(infos: Sequence[SceneInfo]) -> list[Window]:
    """The windows of one episode by CALVIN's rule, by their ends, longest first.

    A short window may stem from one of 64 frames begun before the recording: only its own frames
    matter.

    Args:
        infos: one snapshot for each frame.
    """
    oracle = _Oracle(infos)
    found: set[Window] = set()
    # Every frame may end a window, and every middle may cut it: the rule holds for all of them.
    for last in range(WINDOW - max(MIDDLES) - 1, len(infos)):
        first = last - WINDOW + 1
        for middle in (first + offset for offset in MIDDLES if first + offset >= 0):
            window = _judged(oracle, first, middle, last)
            if window is not None:
                found.add(window)
    # By end and then by start, so that of one completion the longest window comes first.
    return sorted(found, key=lambda window: (window.end, window.start, window.task))


def _judged(oracle: _Oracle, first: int, middle: int, last: int) -> Window | None:
    # Several tasks at once would leave the sentence unclear.
    tasks = oracle.done(middle, last)
    if len(tasks) != 1:
        return None
    (task,) = tasks
    # The task must be completed in the window's tail: the window shows how, not the rest after it.
    if oracle.is_done(middle, first + WINDOW - TAIL, task):
        return None
    # The longer window stays only if its first half shows nothing else.
    whole = (
        first >= 0
        and oracle.is_done(first, last, task)
        and not oracle.done(first, first + WINDOW // 2)
    )
    return Window(task, first if whole else middle, last + 1)


def events(found: Sequence[Window]) -> list[list[Window]]:
    """The windows grouped by their content: each group is one completion of one task."""
    groups: list[list[Window]] = []
    for window in sorted(found, key=lambda window: (window.task, window.end, window.start)):
        previous = groups[-1][-1] if groups else None
        if previous and previous.task == window.task and window.end - previous.end <= 1:
            groups[-1].append(window)
        else:
            groups.append([window])
    return sorted(groups, key=lambda group: group[0].end)
