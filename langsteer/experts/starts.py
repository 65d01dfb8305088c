"""Starts of episodes: scenes like the benchmark's, with a feasible task.

Doors, lights and the blocks' surfaces come from CALVIN's 192 initial states. A block's place and
yaw on its surface are drawn at random, within the scene's own surfaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from langsteer.calvin.benchmark import (
    INITIAL_ROBOT_OBS,
    YAW_RANGE,
    State,
    initial_states,
    is_feasible,
    scene_in,
)
from langsteer.calvin.layout import BLOCK_WIDTH, TABLE_HEIGHT, Layout
from langsteer.calvin.scene_obs import SceneObs
from langsteer.calvin.task import COLOURS, SIDES, Task
from langsteer.experts.blocks import DRAWER_FLOOR
from langsteer.experts.view import View, has_push_room

_CLEARANCE = 0.06
"""Metres between blocks, so that fingers fit beside each."""
_SLOT_JITTER = (0.035, 0.01)
"""Metres around the middle of a cabinet's half. The benchmark's places are among them: in the right
half its block lies 3 cm off the middle."""
_SLOTS = {f"slider_{side}": side for side in SIDES}
_TRIES = 200


@dataclass(frozen=True)
class TaskStart:
    """A scene to begin with, (24,) float64, and the tasks to do before the wanted one."""

    scene_obs: np.ndarray
    before: tuple[str, ...] = ()


def benchmark_robot_obs() -> np.ndarray:
    """(15,) float64: the arm at the start of CALVIN's benchmark."""
    return np.array(INITIAL_ROBOT_OBS)


def sample_start(name: str, layout: Layout, rng: np.random.Generator) -> TaskStart:
    """A start with the task of this ``name`` feasible."""
    task = Task.named(name)
    # These begin with a block in hand: any block on the table is lifted first.
    if task.verb in ("place", "stack"):
        colour = COLOURS[rng.integers(len(COLOURS))]
        lift = f"lift_{colour}_block_table"
        state = _sample_state((lift, name), rng)
        return TaskStart(sample_scene(state, layout, rng), (lift,))
    # No initial state has a block in the drawer: take one with the block on the table and move it.
    if task.verb == "lift" and task.surface == "drawer":
        state = _sample_state((f"lift_{task.colour}_block_table",), rng)
        block = f"{task.colour}_block"
        return TaskStart(sample_scene({**state, "drawer": "open", block: "drawer"}, layout, rng))
    for _ in range(_TRIES):
        if task.verb == "unstack":
            scene = _sample_tower(layout, rng)
        else:
            scene = sample_scene(_sample_state((name,), rng), layout, rng)
        if has_room(name, View(layout, benchmark_robot_obs(), scene)):
            return TaskStart(scene)
    raise RuntimeError(f"no start for {name} found")


def has_room(name: str, view: View) -> bool:
    """Whether a block has room for a task.

    A block to push needs somewhere to go. The upper block of a tower must not lean on the door, or
    the oracle does not call it stacked.
    """
    task = Task.named(name)
    if task.verb == "unstack":
        return view.room_before_door(view.block(view.highest())) > 0.0
    if task.verb != "push":
        return True
    direction = 1 if task.side == "right" else -1
    return has_push_room(view.layout, view.block(task.colour), direction)


def _sample_state(tasks: tuple[str, ...], rng: np.random.Generator) -> dict[str, int | str]:
    """An initial state that allows the tasks one after the other."""
    feasible = [state for state in initial_states() if is_feasible(state, tasks)]
    return feasible[rng.integers(len(feasible))]


def _sample_tower(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """A scene with one block on top of another."""
    lower, upper = rng.permutation(len(COLOURS))[:2]
    state = _sample_state((f"lift_{layout.colours[lower]}_block_table",), rng)
    scene = sample_scene(state, layout, rng)
    blocks = SceneObs(scene).blocks
    blocks[upper, :3] = blocks[lower, :3] + [*rng.uniform(-0.006, 0.006, 2), BLOCK_WIDTH]
    blocks[upper, 5] = blocks[lower, 5] + rng.uniform(-0.2, 0.2)
    return scene


def sample_scene(state: State, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """``scene_obs`` (24,) float64 of a symbolic state, in the order of the layout's blocks."""
    scene = scene_in(state, layout.slider_range, layout.drawer_range, layout.switch_range)
    places = {colour: str(state[f"{colour}_block"]) for colour in layout.colours}
    put_blocks(scene, places, layout, rng)
    return scene.vector


def put_blocks(
    scene: SceneObs, places: Mapping[str, str], layout: Layout, rng: np.random.Generator
) -> None:
    """Put each block somewhere on the surface of its colour in ``places``, with room around it."""
    placed: list[np.ndarray] = []
    for pose, colour in zip(scene.blocks, layout.colours, strict=True):
        pose[:3] = _sample_place(places[colour], layout, placed, rng)
        pose[5] = rng.uniform(*YAW_RANGE)
        placed.append(pose[:3])


def _sample_place(
    place: str, layout: Layout, placed: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """(3,) metres, clear of the blocks already placed."""
    for _ in range(_TRIES):
        position = _draw(place, layout, rng)
        # Level distance: fingers need room beside a block at any height.
        gaps = [np.linalg.norm(position[:2] - other[:2]) for other in placed]
        if all(gap > BLOCK_WIDTH + _CLEARANCE for gap in gaps):
            return position
    raise RuntimeError(f"no room for a block on {place!r}")


def _draw(place: str, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    if place in _SLOTS:
        jitter = rng.uniform(-1.0, 1.0, 2) * _SLOT_JITTER
        return layout.slot(_SLOTS[place]) + np.array([*jitter, 0.001])
    if place == "drawer":
        x = layout.drawer[0] + rng.uniform(-0.08, 0.08)
        return np.array([x, rng.uniform(-0.33, -0.27), DRAWER_FLOOR + BLOCK_WIDTH / 2])
    low, high = (np.array(corner) for corner in layout.surfaces["table"])
    x, y = rng.uniform(low[:2] + 0.02, high[:2] - 0.02)
    return np.array([x, y, TABLE_HEIGHT + BLOCK_WIDTH / 2])
