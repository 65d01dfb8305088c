"""Point a rollout at the thing of its sentence: draw until the hand is there, then let go.

Example::

    pointer = Pointer.at_task("open_drawer", layout, look, near=0.05)
    said = pointer.say(hand)
    said.draws, said.means      # objectives
    if pointer.looks:
        pointer.show(look)      # before the next prediction

Far from the point, `Point` draws the path's end there and ranks the samples. Once the hand is near,
nothing draws: `Intent` ranks the policy's own samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from langsteer.calvin.layout import Layout
from langsteer.steering.blocks import OccludedError, Scene
from langsteer.steering.objectives import Intent, Objective, Point
from langsteer.steering.pointing import Meant, aim_of
from langsteer.steering.sight import Look, Sight

AWAY = 3.0
"""At this many times ``near`` the hand has left the point, and is drawn again."""
_OVER_SURFACE = np.array([0.0, 0.0, 0.05])
"""Metres from a pixel's surface to the tcp's point over it."""


@dataclass(frozen=True)
class Said:
    """The objectives of a prediction.

    Attributes:
        draws: draw the path; empty once the hand is there.
        means: choose among samples from then on.
    """

    draws: tuple[Objective, ...] = ()
    means: tuple[Objective, ...] = ()


@dataclass
class Pointer:
    """The state of a rollout.

    Attributes:
        point: (3,) metres, the hand's aim, as last seen.
        near: metres from the point within which the hand has arrived.
        meant: the intent at the point; None to stay there.
        find: finds the point in a look; None for a fixed one.
        arrived: whether nothing draws at the moment.
    """

    point: NDArray[np.float64]
    near: float = 0.0
    meant: Meant | None = None
    find: Callable[[Look], NDArray[np.float64]] | None = None
    arrived: bool = field(default=False, init=False)

    @classmethod
    def at_task(
        cls, task: str, layout: Layout, look: Look, near: float, known: Scene | None = None
    ) -> "Pointer":
        """Towards the thing of a task.

        Args:
            task: one of CALVIN's.
            layout: of the scene.
            look: the cameras' present images.
            near: drawing ends within these metres.
            known: a scene with known places; None to see them.

        Raises:
            OccludedError: the thing is a block, and it is not seen.
            UserError: no task has this name.
        """
        aim = aim_of(task)
        if known is not None:
            return cls(aim.point(task, layout, known), near, aim.meant)

        def find(look: Look) -> NDArray[np.float64]:
            return aim.point(task, layout, Sight(layout, look))

        return cls(find(look), near, aim.meant, find)

    @classmethod
    def at_place(cls, place: tuple[float, ...], look: Look) -> "Pointer":
        """Towards a point (3,) in metres, or over the surface in a static camera's pixel (2,).

        Raises:
            UserError: there is no such pixel, or nothing in it.
        """
        if len(place) == 3:
            return cls(np.array(place, dtype=np.float64))
        return cls(look.point_at(*place) + _OVER_SURFACE)

    @property
    def looks(self) -> bool:
        """Whether `show` makes a difference."""
        return self.find is not None and not self.arrived

    def show(self, look: Look) -> None:
        """Follow the thing if it moves. A thing hidden by the arm stays at its last place."""
        if self.find is None:
            return
        try:
            self.point = self.find(look)
        except OccludedError:
            return

    def say(self, hand: NDArray[np.floating]) -> Said:
        """The objectives of the next prediction for a hand at (3,) metres."""
        gap = float(np.linalg.norm(hand - self.point))
        # Between the two distances nothing changes: the hand may work around the point.
        self.arrived = gap <= (AWAY * self.near if self.arrived else self.near)
        if self.meant is None or not self.arrived:
            return Said(draws=(Point(torch.from_numpy(self.point).float()),))
        meant = self.meant
        if meant == Meant():
            return Said()
        return Said(means=(Intent(meant.toward, meant.turn, meant.fingers),))
