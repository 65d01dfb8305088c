"""Choose the windows of a CALVIN split to become a store's episodes.

Example::

    wanted, repeated = wanted_windows(split, "language", tasks=("open_drawer",))
    problems = [window_problem(one, read_ranges(split), list_frames(split)) for one in wanted]
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.dataset import RANGES, Annotation, Split, read_annotations, read_ranges

EPISODE_KINDS = ("language", "play", "labelled")
"""Annotated windows; whole recordings; these with their task, if they show one alone."""


def wanted_windows(
    split: Split, episodes: str, tasks: Sequence[str] | None = None
) -> tuple[list[Annotation], list[Annotation]]:
    """The distinct windows to convert, by first frame, and the mere repetitions.

    Args:
        split: of the dataset.
        episodes: one of `EPISODE_KINDS`.
        tasks: only windows of these; None takes all.

    Raises:
        UserError: the split's recordings or annotations are missing or damaged.
    """
    if episodes == "play":
        return _recordings(split, []), []
    if episodes == "labelled":
        recordings = _recordings(split, read_annotations(split))
        return [one for one in recordings if tasks is None or one.task in tasks], []
    wanted, repeated = set(), []
    for window in read_annotations(split):
        if tasks is not None and window.task not in tasks:
            continue
        # A repetition would weigh its window twice in training.
        if window in wanted:
            repeated.append(window)
        wanted.add(window)
    return sorted(wanted), repeated


def _recordings(split: Split, annotations: Sequence[Annotation]) -> list[Annotation]:
    """Whole recordings; with task and first sentence if all annotations say one task."""
    found = []
    annotations = sorted(annotations)
    starts = [one.start for one in annotations]
    for first, last in read_ranges(split).tolist():
        begun = annotations[bisect_left(starts, first) : bisect_right(starts, last)]
        within = [one for one in begun if one.end - 1 <= last]
        tasks = {one.task for one in within}
        label = (within[0].task, within[0].instruction) if len(tasks) == 1 else ("", "")
        found.append(Annotation(first, last + 1, *label))
    return found


def window_problem(
    window: Annotation, ranges: NDArray[np.int64], frames: NDArray[np.int64]
) -> str | None:
    """The reason against converting a window, as far as the file names tell, or None.

    Args:
        window: of a split.
        ranges: (K, 2), first and last frame of its recordings.
        frames: (M,) sorted numbers of the frames with files.
    """
    if window.start >= window.end:
        return "it ends before it starts"
    # Looked for among the files, since a damaged window may span more than memory holds.
    there = frames[slice(*np.searchsorted(frames, [window.start, window.end]))]
    missing = window.end - window.start - len(there)
    if missing:
        gaps = np.flatnonzero(there != window.start + np.arange(len(there)))
        first = window.start + (int(gaps[0]) if len(gaps) else len(there))
        more = f" and {missing - 1} more" if missing > 1 else ""
        return f"frame {first}{more} missing"
    # All frames may exist and still belong to two recordings.
    within = (ranges[:, 0] <= window.start) & (window.end - 1 <= ranges[:, 1])
    if not within.any():
        return f"it is not within one recording of {RANGES}, so time would jump in it"
    return None
