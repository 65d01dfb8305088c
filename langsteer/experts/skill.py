"""One scripted skill: a plan of moves for a task, carried out one relative action at a time.

A plan is a generator of `Move`s. It looks at the scene anew before each of them, so it notices in
time if something went otherwise than planned.

Example::

    layout = read_layout(env)
    hand = Hand(env.robot_obs[:3], env.robot_obs[3:6], rng)
    skill = Skill("open_drawer", planner, hand, rng)    # library.make_skill finds the planner
    while (action := skill.act(View(layout, env.robot_obs, env.scene_obs))) is not None:
        env.step(action)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from langsteer.experts.motion import Hand, Move
from langsteer.experts.view import View

Plan = Iterator[Move]

_PATIENCE = 12
"""Control steps a leg may take after its arrival, for ``until`` or for the arm to catch up."""


@dataclass
class Scene:
    """The inputs of a plan: the present view, the commanded pose, a source of variety."""

    view: View
    hand: Hand
    rng: np.random.Generator

    def vary(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))


Planner = Callable[[Scene], Plan]


class Skill:
    """Carries out one plan; see the module's example.

    Attributes:
        name: of the task.
    """

    def __init__(self, name: str, planner: Planner, hand: Hand, rng: np.random.Generator) -> None:
        self.name = name
        self._planner, self._hand, self._rng = planner, hand, rng
        self._scene: Scene | None = None
        self._plan: Plan = iter(())
        self._move: Move | None = None
        self._stayed = 0

    def act(self, view: View) -> np.ndarray | None:
        """The next relative action (7,), or None when the plan is done."""
        if self._scene is None:
            self._scene = Scene(view, self._hand, self._rng)
            self._plan = self._planner(self._scene)
            self._move = next(self._plan, None)
        # The plan reads the view when it yields its next move, not before.
        self._scene.view = view
        # Several legs may be done at once, such as a short one within the last one's radius.
        while self._move is not None and self._is_done(self._move, view):
            self._move, self._stayed = next(self._plan, None), 0
        return None if self._move is None else self._hand.toward(self._move)

    def _is_done(self, move: Move, view: View) -> bool:
        if move.until is not None and move.until(view):
            return True
        if not self._hand.has_reached(move):
            return False
        self._stayed += 1
        lag = float(np.linalg.norm(view.tcp - np.asarray(move.position)))
        waits = move.until is not None or lag > move.radius + 0.012
        return self._stayed > move.wait + (_PATIENCE if waits else 0)
