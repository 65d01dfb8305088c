"""What a store holds as a whole: tasks, lengths, actions, starts of the hand, what was left out.

Example::

    overview(open_store("data/calvin.zarr"))["tasks"]       # [["open_drawer", 30], ...]
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.data.store import Store

ACTION_NAMES = ("dx", "dy", "dz", "d roll", "d pitch", "d yaw", "gripper")
_MOST_STARTS = 1500
_MOST_LEFT_OUT = 200
_BINS = 24


def overview(store: Store) -> dict[str, Any]:
    """Plain values for the page.

    ``tiles`` are numbers with their labels, ``tasks`` and ``left_out`` rows of tables, ``actions``
    a row of statistics for each of the 7 dimensions, ``lengths`` a histogram of frames, and
    ``starts`` the first tcp positions (K, 2) in metres with their tasks.
    """
    table, lengths = store.episodes, store.episode_ends - store.episode_starts
    splits = Counter(table.split.tolist())
    left_out = store.attributes.get("conversion", {}).get("left_out", [])
    named = Counter(task for task in table.task.tolist() if task)
    return {
        "tiles": [
            [f"{store.n_frames:,}", "frames"],
            *([f"{count:,}", f"{split} episodes"] for split, count in sorted(splits.items())),
            [str(len(named)), "tasks"],
            [f"{store.n_points:,}", "points of a cloud"],
            [f"{len(left_out):,}", "episodes left out"],
        ],
        "tasks": [[task, count] for task, count in named.most_common()],
        "lengths": _histogram(lengths),
        "actions": _statistics(store.read("action")),
        "starts": _starts(store),
        "left_out": [
            [f"{one['split']} {one['start']}-{one['end']}", one["task"], one["reason"]]
            for one in left_out[:_MOST_LEFT_OUT]
        ],
    }


def _histogram(lengths: NDArray[np.int64]) -> dict[str, list[float]]:
    counts, edges = np.histogram(lengths, bins=min(_BINS, int(np.ptp(lengths)) + 1))
    return {"counts": counts.tolist(), "middles": ((edges[1:] + edges[:-1]) / 2).tolist()}


def _statistics(actions: NDArray[np.float32]) -> list[list[str]]:
    """Name, mean, deviation, 1st and 99th percentile and the share at a bound, as text."""
    low, high = np.percentile(actions, [1, 99], axis=0)
    at_bound = (np.abs(actions) >= 0.999).mean(axis=0)
    columns = zip(ACTION_NAMES, actions.mean(0), actions.std(0), low, high, at_bound, strict=True)
    return [
        [name, *(f"{value:.3f}" for value in values), f"{100 * share:.1f} %"]
        for name, *values, share in columns
    ]


def _starts(store: Store) -> dict[str, list[Any]]:
    """The hand's places in the first frames of episodes; of many, an even choice."""
    count = min(_MOST_STARTS, len(store.episodes))
    chosen = np.linspace(0, len(store.episodes) - 1, count).astype(np.int64)
    places = store.read("state")[store.episode_starts[chosen], :2].round(4)
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "task": store.episodes.task[chosen].tolist(),
    }
