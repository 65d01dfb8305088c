"""Success at CALVIN as two papers on steered policies judge it, beside CALVIN's own oracle.

Both measure how far things have moved since the start. They differ in the distance they ask for,
and in what a wrong behaviour does:

- ``dynaguide``: DynaGuide (arXiv 2506.13922), ``analyze_calvin_touch.py`` of its repository. The
  first behaviour ends the attempt: a success if it is the one asked for. An attempt is 400
  steps, ``--horizon`` of ``paper_experiments/calvin_articulated_object.sh``.
- ``vls``: VLS (arXiv 2602.03973), ``core/env_adapters/calvin_adapter.py`` of its repository. Things
  must move farther, and a wrong behaviour ends nothing. An attempt is 200 steps: the default of
  ``base_adapter.py`` beside it, and ``max_episode_steps`` of ``ablations/``.

Their tasks: move the drawer, the door, the switch or the button, or displace a block of a colour.

Example::

    judge = PROTOCOLS["vls"].judge_of("open_drawer", env.block_names)
    run = run_task(env, agent, "open_drawer", STEPS["vls"], judge=judge)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.calvin.scene_obs import SceneObs
from langsteer.calvin.task import Task
from langsteer.errors import UserError
from langsteer.evaluation.rollout import Judge, TaskRun

CALVIN = "calvin"
_GRIPPER = 14  # of robot_obs: the command, +1 open or -1 closed


class Behaviour(NamedTuple):
    """A thing that moved, and whether towards left, open or on; a block has no direction."""

    thing: str
    forward: bool = True


@dataclass(frozen=True)
class Protocol:
    """The travel of a thing that counts, in metres.

    Attributes:
        slider, drawer, switch: travel of the joints; a light counts once it changes.
        block: displacement of a block.
        reach: distance between the block and the tcp, at most.
        in_closed_hand: whether a block counts with a closed gripper only.
        first_ends: whether the first behaviour, right or wrong, ends the attempt.
        steps: control steps of an attempt, at most.
    """

    slider: float
    drawer: float
    switch: float
    block: float
    reach: float
    in_closed_hand: bool
    first_ends: bool
    steps: int

    def judge_of(self, task: str, block_names: Sequence[str]) -> Judge:
        """The judge of a task, for scenes with blocks in this order.

        Raises:
            UserError: the protocol has no such task.
        """
        return partial(self._verdict, behaviour_of(task), tuple(block_names))

    def _verdict(self, asked: Behaviour, names: Sequence[str], run: TaskRun) -> bool | None:
        """True for done, False for failed, None to go on."""
        seen = self.seen(run.scene_obs[0], run.scene_obs[-1], run.robot_obs[-1], names)
        if not seen:
            return None
        if self.first_ends:
            # Several blocks may move in a step, and each counts; a joint counts beside no other.
            moved = [one for one in seen if one.thing in names] or seen[:1]
            return asked in moved
        return True if seen[-1] == asked else None

    def seen(
        self,
        start: NDArray[np.float64],
        now: NDArray[np.float64],
        robot_obs: NDArray[np.float64],
        names: Sequence[str],
    ) -> list[Behaviour]:
        """Behaviours between two states, blocks first, then in the order of the papers' code.

        Args:
            start, now: (24,) ``scene_obs``.
            robot_obs: (15,) of now.
            names: of the blocks, in their order.
        """
        before, after = SceneObs(start), SceneObs(now)
        distances = np.linalg.norm(after.blocks[:, :3] - robot_obs[:3], axis=1)
        moved = np.linalg.norm(after.blocks[:, :3] - before.blocks[:, :3], axis=1)
        may = robot_obs[_GRIPPER] < 0 or not self.in_closed_hand
        near = (distances < self.reach) & (moved > self.block) & may
        found = [Behaviour(name) for name, does in zip(names, near, strict=True) if does]
        travels = {
            "slider": (after.slider - before.slider, self.slider),
            "drawer": (after.drawer - before.drawer, self.drawer),
            "switch": (after.switch - before.switch, self.switch),
            "led": (float(after.led) - float(before.led), 0.5),
        }
        return found + [
            Behaviour(thing, travel > 0)
            for thing, (travel, least) in travels.items()
            if abs(travel) > least
        ]


PROTOCOLS = {
    "dynaguide": Protocol(
        0.05, 0.05, 0.02, 0.001, 0.10, in_closed_hand=False, first_ends=True, steps=400
    ),
    # Shares 0.9, 0.6 and 0.7 of 0.27, 0.16 and 0.08 m.
    "vls": Protocol(
        0.243, 0.096, 0.056, 0.005, 0.06, in_closed_hand=True, first_ends=False, steps=200
    ),
}
STEPS = {CALVIN: STEPS_PER_TASK, **{name: one.steps for name, one in PROTOCOLS.items()}}
"""Control steps of an attempt under each protocol, at most; CALVIN's are its benchmark's."""


def behaviour_of(name: str) -> Behaviour:
    """The behaviour of a CALVIN task; raises `UserError` if the papers have none."""
    task = Task.named(name)
    match task.verb:
        case "move":
            return Behaviour("slider", task.side == "left")
        case "open" | "close":
            return Behaviour("drawer", task.verb == "open")
        case "turn_on" | "turn_off":
            thing = "switch" if task.about == "lightbulb" else "led"
            return Behaviour(thing, task.verb == "turn_on")
        case "push" | "lift" | "rotate":
            return Behaviour(task.block)
    raise UserError(
        f"tasks: {name} is none of the papers' behaviours; they have drawer, slider, lightbulb, "
        "led, and pushes, lifts and rotations as a block's displacement; or use protocol=calvin"
    )
