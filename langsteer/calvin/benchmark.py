"""CALVIN's long-horizon benchmark (LH-MTLC): its 1000 chains of tasks and their initial states.

The chains are made again here from a symbolic model of the scene, equal to the official ones to the
last bit. Each of 192 initial states has five or six chains. The five tasks of a chain are drawn
until they can be done one after the other. Drawing is vectorised: 9 s on one core, not minutes on
two.

Example::

    for chain in chains(50):                        # the first 50 of the 1000
        robot_obs, scene_obs = initial_observations(chain.initial_state)
        env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs})
        for task in chain.tasks: ...
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from langsteer.calvin.scene_obs import DRAWER_RANGE, SLIDER_RANGE, SWITCH_RANGE, SceneObs
from langsteer.calvin.task import ALL_TASKS, COLOURS, TASKS, Task
from langsteer.errors import UserError

N_CHAINS = 1000
CHAIN_LENGTH = 5
STEPS_PER_TASK = 360
"""A policy's environment steps for each task."""

State = Mapping[str, int | str]
"""``led``, ``lightbulb`` 0/1; ``slider`` left/right; ``drawer`` open/closed; ``{colour}_block`` its
place; ``grasped`` 0/1."""

Needs = dict[str, tuple[int | str, ...]]
Rule = tuple[Needs, dict[str, int | str]]
"""Conditions of a task (key to admissible values), and its changes."""


@dataclass(frozen=True)
class Chain:
    """Five tasks to be done in a row from one initial state."""

    initial_state: State
    tasks: tuple[str, ...]


def _others(colour: str) -> list[str]:
    return [f"{other}_block" for other in COLOURS if other != colour]


def _rules(task: Task) -> list[Rule]:
    """The ways to do a task, as CALVIN's benchmark models them."""
    block, free = f"{task.colour}_block", {"grasped": (0,)}
    match task.verb:
        case "rotate" | "push":
            return [({block: ("table",), **free}, {block: "table"})]
        case "move":
            other = "right" if task.side == "left" else "left"
            return [({"slider": (other,), **free}, {"slider": task.side})]
        case "open":
            return [({"drawer": ("closed",), **free}, {"drawer": "open"})]
        case "close":
            return [({"drawer": ("open",), **free}, {"drawer": "closed"})]
        case "turn_on" | "turn_off":
            lit = int(task.verb == "turn_on")
            return [({task.about: (1 - lit,), **free}, {task.about: lit})]
        case "lift":
            return _lift_rules(block, task.surface)
    return list(_block_rules(task.name))


def _lift_rules(block: str, surface: str) -> list[Rule]:
    effect: dict[str, int | str] = {block: "grasped", "grasped": 1}
    if surface == "table":
        return [({block: ("table",), "grasped": (0,)}, effect)]
    if surface == "drawer":
        return [({block: ("drawer",), "drawer": ("open",), "grasped": (0,)}, effect)]
    # The door covers the side it stands on.
    return [
        ({block: (f"slider_{side}",), "slider": (door,), "grasped": (0,)}, effect)
        for side, door in (("left", "right"), ("right", "left"))
    ]


def _block_rules(task: str) -> Iterator[Rule]:
    """Rules of the tasks without a colour."""
    for colour in COLOURS:
        block = f"{colour}_block"
        held: Needs = {block: ("grasped",), "grasped": (1,)}
        if task == "place_in_slider":
            for side in ("right", "left"):
                yield {**held, "slider": (side,)}, {block: f"slider_{side}", "grasped": 0}
        elif task == "place_in_drawer":
            yield {**held, "drawer": ("open",)}, {block: "drawer", "grasped": 0}
        elif task == "push_into_drawer":
            elsewhere: Needs = dict.fromkeys(_others(colour), ("slider_right", "slider_left"))
            needs: Needs = {block: ("table",), **elsewhere, "drawer": ("open",), "grasped": (0,)}
            yield needs, {block: "drawer", "grasped": 0}
        elif task == "stack_block":
            for other in _others(colour):
                below = {other: ("table",)}
                yield (
                    {**held, **below},
                    {block: "stacked_top", other: "stacked_bottom", "grasped": 0},
                )
        elif task == "unstack_block":
            for other in _others(colour):
                needs = {block: ("stacked_top",), other: ("stacked_bottom",), "grasped": (0,)}
                yield needs, {block: "table", other: "table"}


_RULES = {task.name: _rules(task) for task in ALL_TASKS}


def successors(state: State, task: str) -> list[dict[str, int | str]]:
    """The possible states after ``task``; none if it cannot be done."""
    return [
        {**state, **effect}
        for needs, effect in _RULES[task]
        if all(state[key] in admissible for key, admissible in needs.items())
    ]


def category(name: str) -> str:
    """Tasks of one category never come twice in a chain."""
    task = Task.named(name)
    match task.verb:
        case "rotate" | "push":
            return "turn or push"
        case "lift":
            return f"lift from {task.surface}"
        case "move":
            return "move"
        case "place":
            return "place"
        case "turn_on" | "turn_off":
            return "turn"
        case "open" | "close":
            return "drawer"
    return name


_CATEGORIES = sorted({category(task) for task in TASKS})
_CATEGORY_BIT = np.array([1 << _CATEGORIES.index(category(task)) for task in TASKS], np.uint16)


def is_feasible(state: State, sequence: tuple[str, ...]) -> bool:
    """Whether every task in turn leads to exactly one next state."""
    for task in sequence:
        # Two possible outcomes would make the next task's start uncertain, so CALVIN drops them.
        following = successors(state, task)
        if len(following) != 1:
            return False
        state = following[0]
    return True


def initial_states() -> list[dict[str, int | str]]:
    """The benchmark's 192 initial states, in its order.

    One or two blocks lie on the table, and at most one in each half of the slider.
    """
    places = [
        dict(zip((f"{colour}_block" for colour in COLOURS), choice, strict=True))
        for choice in itertools.product(("table", "slider_right", "slider_left"), repeat=3)
        if choice.count("table") in (1, 2)
        and choice.count("slider_right") < 2
        and choice.count("slider_left") < 2
    ]
    return [
        {"led": led, "lightbulb": bulb, "slider": slider, "drawer": drawer, **blocks, "grasped": 0}
        for led, bulb, slider, drawer, blocks in itertools.product(
            (0, 1), (0, 1), ("right", "left"), ("closed", "open"), places
        )
    ]


def _drawn_tasks(seed: int, batch: int = 16384) -> Iterator[np.ndarray]:
    """Batches (batch, 5) uint8 of successive draws of ``np.random.choice(34, 5, replace=False)``.

    NumPy's legacy choice shuffles 0..33 (Fisher-Yates, from the last place down) and takes the
    first five. ``randint`` with an array of bounds consumes the generator in the same way. So the
    partners of many shuffles are drawn at once; then each of the five places is followed back.
    """
    rng = np.random.RandomState(seed)
    n_tasks = len(TASKS)
    bounds = np.tile(np.arange(n_tasks, 1, -1), batch)
    while True:
        partners = rng.randint(0, bounds).astype(np.uint8).reshape(batch, -1).T.copy()
        origin = np.repeat(np.arange(CHAIN_LENGTH, dtype=np.uint8)[:, None], batch, axis=1)
        for place, partner in zip(range(1, n_tasks), partners[::-1], strict=True):
            at_place, at_partner = origin == place, origin == partner
            origin = np.where(at_place, partner, np.where(at_partner, np.uint8(place), origin))
        yield origin.T


def _chains_from(state: State, count: int, seed: int) -> list[tuple[str, ...]]:
    """The first ``count`` feasible sequences of the draws with this seed."""
    can_start = np.array([len(successors(state, task)) == 1 for task in TASKS])
    found: list[tuple[str, ...]] = []
    for drawn in _drawn_tasks(seed):
        # Cheap tests on all draws first; few remain for the exact one.
        candidates = drawn[can_start[drawn[:, 0]]]
        bits = _CATEGORY_BIT[candidates]
        candidates = candidates[np.bitwise_or.reduce(bits, axis=1) == bits.sum(axis=1)]
        for row in candidates:
            sequence = tuple(TASKS[index] for index in row)
            if is_feasible(state, sequence):
                found.append(sequence)
                if len(found) == count:
                    return found
    raise AssertionError("the draws have no end")


def chains(first: int = N_CHAINS) -> list[Chain]:
    """The first chains of the benchmark's 1000, in its order.

    Only initial states among them are worked on.

    Raises:
        UserError: ``first`` is not in 1..1000.
    """
    if not 1 <= first <= N_CHAINS:
        raise UserError(
            f"{first} chains asked for: the benchmark has {N_CHAINS}; give 1..{N_CHAINS}"
        )
    states, order, counts = initial_states(), _order(), _counts()
    wanted = order[:first]
    found = {
        index: _chains_from(states[index], counts[index], seed=index)
        for index in sorted({index for index, _ in wanted})
    }
    return [Chain(states[index], found[index][rank]) for index, rank in wanted]


def chain(number: int) -> Chain:
    """One chain of the benchmark's 1000, without working on the others.

    Raises:
        UserError: ``number`` is not in 0..999.
    """
    if not 0 <= number < N_CHAINS:
        raise UserError(f"chain {number}: the benchmark has 0..{N_CHAINS - 1}")
    index, rank = _order()[number]
    state = initial_states()[index]
    return Chain(state, _chains_from(state, rank + 1, seed=index)[rank])


def _counts() -> list[int]:
    """Number of chains at each initial state."""
    return [len(part) for part in np.array_split(np.arange(N_CHAINS), len(initial_states()))]


def _order() -> list[tuple[int, int]]:
    """The initial state, and the rank among its chains, of each chain in turn."""
    order = [(index, rank) for index, count in enumerate(_counts()) for rank in range(count)]
    np.random.RandomState(0).shuffle(order)
    return order


def fnv1_seed(text: str) -> int:
    """CALVIN's seed from a text: pyhash's ``fnv1_32``.

    It is FNV-1 with 32 bits over the text's UTF-16-LE bytes, started from 0 instead of the usual
    offset basis; ``fnv1_seed("test") == 3910690890``.
    """
    value = 0
    for byte in text.encode("utf-16-le"):
        value = (value * 16777619) % 2**32 ^ byte
    return value


INITIAL_ROBOT_OBS = (
    *(0.02586889, -0.2313129, 0.5712808),  # TCP position
    *(3.09045411, -0.02908596, 1.50013585),  # TCP orientation
    0.07999963,  # gripper width
    *(-1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928),
    1.0,  # last gripper command
)
SLIDER_PLACES = {
    "slider_left": (-0.240851662, 0.0924044687, 0.460990009),
    "slider_right": (0.070341633, 0.0924044687, 0.460990009),
}
TABLE_PLACES = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.11999514, 0.45999001))
YAW_RANGE = (np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8)


def initial_observations(state: State) -> tuple[np.ndarray, np.ndarray]:
    """The benchmark's ``robot_obs`` (15,) and ``scene_obs`` (24,) float64 of an initial state.

    Blocks are in scene D's order: red, blue, pink. The state itself seeds the generator of the
    blocks' places on the table and of each yaw.
    """
    rng = np.random.RandomState(fnv1_seed(str(dict(state).values())))
    table = [np.array(place) for place in TABLE_PLACES]
    rng.shuffle(table)
    scene = scene_in(state, SLIDER_RANGE, DRAWER_RANGE, SWITCH_RANGE)
    # Red takes the first place on the table, pink the second, blue the one left by red.
    slots = {"red": 0, "blue": 1 if state["red_block"] == "table" else 0, "pink": 1}
    for block, colour in zip(scene.blocks, COLOURS, strict=True):
        place = state[f"{colour}_block"]
        block[:3] = table[slots[colour]] if place == "table" else SLIDER_PLACES[str(place)]
        block[5] = rng.uniform(*YAW_RANGE)
    return np.array(INITIAL_ROBOT_OBS), scene.vector


def scene_in(
    state: State, slider_range: float, drawer_range: float, switch_range: float
) -> SceneObs:
    """A scene with the doors, switch and lights of ``state``; its blocks are still to place.

    Args:
        state: of `initial_states`.
        slider_range, drawer_range, switch_range: largest joint values in metres.
    """
    return SceneObs.at_rest(
        slider=slider_range if state["slider"] == "left" else 0.0,
        drawer=drawer_range if state["drawer"] == "open" else 0.0,
        switch=switch_range if state["lightbulb"] == 1 else 0.0,
        lightbulb=float(state["lightbulb"]),
        led=float(state["led"]),
    )
