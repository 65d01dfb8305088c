"""Starts from which several tasks are tried in turn: scenes of the benchmark, the hand displaced.

Example::

    for start in sample_starts(env, ["open_drawer", "turn_on_led"], 10, seed=1000, together=True):
        env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.benchmark import initial_states, is_feasible
from langsteer.calvin.dataset import METRES_PER_UNIT
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.experts.starts import benchmark_robot_obs, has_room, sample_scene
from langsteer.experts.view import Layout, View, read_layout
from langsteer.steering.feasibility import why_infeasible

# Besides the seed, so that no demonstration of the same seed begins at a start of this.
_STREAM = 0x57EE
_DISPLACEMENT = np.array([0.10, 0.08, 0.06])  # metres at most, along x, y and z
_DISPLACEMENT_STEPS = 20
_MOST_DRAWS = 50
"""Starts that are looked at for each that is wanted."""


@dataclass(frozen=True)
class Start:
    """Where attempts begin.

    Attributes:
        number: of the draw.
        robot_obs, scene_obs: (15,) and (24,) for ``CalvinEnv.reset``.
        seed: of the noise.
        tasks: those of the comparison that can be done from here.
    """

    number: int
    robot_obs: NDArray[np.float64]
    scene_obs: NDArray[np.float64]
    seed: int
    tasks: tuple[str, ...]


def sample_starts(
    env: CalvinEnv, tasks: Sequence[str], count: int, seed: int, together: bool
) -> list[Start]:
    """The first ``count`` drawn starts from which some task can be done; ``together``: every task.

    Raises:
        UserError: there are too few of them.
    """
    layout = read_layout(env)
    found: list[Start] = []
    least = len(tasks) if together else 1
    for number in range(_MOST_DRAWS * count):
        start = sample_start(env, layout, seed, number, tasks)
        if len(start.tasks) >= least:
            found.append(start)
        if len(found) == count:
            return found
    which = "all" if together else "any"
    raise UserError(
        f"of {_MOST_DRAWS * count} starts only {len(found)} allow {which} of {', '.join(tasks)}; "
        "change tasks, or together"
    )


def sample_start(
    env: CalvinEnv, layout: Layout, seed: int, number: int, tasks: Sequence[str]
) -> Start:
    """A symbolic state of the benchmark, with the hand displaced by up to 10, 8 and 6 cm.

    A task counts as one that can be done where the benchmark's rules and the oracle allow it, and a
    block has room to be pushed.
    """
    random = np.random.default_rng([_STREAM, seed, number])
    states = initial_states()
    state = states[random.integers(len(states))]
    scene_obs = sample_scene(state, layout, random)
    env.reset(options={"robot_obs": benchmark_robot_obs(), "scene_obs": scene_obs})
    action = np.zeros(7)
    action[:3] = random.uniform(-1, 1, 3) * _DISPLACEMENT / (METRES_PER_UNIT * _DISPLACEMENT_STEPS)
    action[6] = -1.0
    # Meanwhile the blocks come to rest: one that still falls touches nothing, and the oracle counts
    # a push or a lift only of a block that lay on something.
    for _ in range(_DISPLACEMENT_STEPS):
        env.step(action)
    info, view = env.info(), View(layout, env.robot_obs, env.scene_obs)
    feasible = tuple(
        task
        for task in tasks
        if is_feasible(state, (task,)) and why_infeasible(task, info) is None
        if has_room(task, view)
    )
    noise_seed = int(random.integers(2**31))
    return Start(number, env.robot_obs, env.scene_obs, noise_seed, feasible)
