"""Point a rollout at the thing of its sentence: draw until the hand is there, then let go.

Example::

    pointer = Pointer.at_task("open_drawer", layout, look, config)
    objectives = pointer.objectives(moment)
    if pointer.looks:
        pointer.show(look)      # before the next prediction

Far from the point, `Point` draws the path's end there. Once the hand is near, the policy's own
samples are ranked, by `Touch` until the hand meets the thing, then by `Intent`. `Touch` draws as
well, and where the thing is to be grasped, so does `Intent`, until it is turned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from langsteer.calvin.angles import wrapped
from langsteer.calvin.kinematics import GRIPPER_WIDTH
from langsteer.calvin.layout import BLOCK_WIDTH, HANDLE_FRONT, Layout
from langsteer.steering.blocks import OccludedError, Scene
from langsteer.steering.config import SteeringConfig
from langsteer.steering.objectives import Intent, Objective, Point, Touch
from langsteer.steering.path import POSITION, YAW
from langsteer.steering.pointing import OPEN, Contact, aim_of
from langsteer.steering.sight import Look, Sight
from langsteer.steering.source import Moment, Objectives, Weighted

AWAY = 3.0
"""At this many times ``near`` the hand has left the point, and is drawn again."""
TOUCHING = 0.02
"""A hand within these metres of the place of contact touches the thing."""
WAY = 0.13
"""Metres along the intent from the touch after which a push or a lift is done, or lost."""
PUSH = 0.06
"""Metres of a path that pushes; random paths are shorter, and would push in many small steps."""
EMPTY, WIDE = 0.01, 0.055
"""Metres between the fingers: below the first they are closed on nothing, above the second open. A
block is 4 cm wide."""
_TURNED = 1.2
"""Radians of a finished turn; CALVIN asks for 60 degrees, with the block on its surface."""
_FAR = 0.3
"""Metres within which the place of contact draws; a hand at the point is always nearer."""
_OUTSIDE = HANDLE_FRONT - 1.5 * BLOCK_WIDTH
"""The y of a hand whose block is clear of the cabinet and its door."""
_UP = (0.0, 0.0, 1.0)
_OVER_SURFACE = np.array([0.0, 0.0, 0.05])
"""Metres from a pixel's surface to the tcp's point over it."""


@dataclass
class Pointer:
    """The state of a rollout.

    Attributes:
        point: (3,) metres, the hand's aim, as last seen.
        near: metres from the point within which the hand has arrived.
        contact: the intent at the point; None to stay there.
        find: finds the point in a look; None for a fixed one.
        weight: of the objectives.
        intent: weight, in the gradient, of the way to the thing and of the motion with a grasp.
        arrived: whether the hand is at the point, which then draws no more.
        touched: whether the hand has met the thing since it arrived.
        turned: whether it has since turned the thing as far as the task asks.
    """

    point: NDArray[np.float64]
    near: float = 0.0
    contact: Contact | None = None
    find: Callable[[Look], NDArray[np.float64]] | None = None
    weight: float = 1.0
    intent: float = 0.0
    arrived: bool = field(default=False, init=False)
    touched: bool = field(default=False, init=False)
    turned: bool = field(default=False, init=False)
    _yaw_before: float = field(default=0.0, init=False)
    """The hand's yaw when it was last seen not to touch the thing."""

    @classmethod
    def at_task(
        cls,
        task: str,
        layout: Layout,
        look: Look,
        config: SteeringConfig,
        known: Scene | None = None,
    ) -> "Pointer":
        """Towards the thing of a task.

        Args:
            task: one of CALVIN's.
            layout: of the scene.
            look: the cameras' present images.
            config: where drawing ends, and the weights.
            known: a scene with known places; None to see them.

        Raises:
            OccludedError: the thing is a block, and it is not seen.
            UserError: no task has this name.
        """
        aim = aim_of(task)

        def find(look: Look) -> NDArray[np.float64]:
            return aim.point(task, layout, Sight(layout, look))

        point = find(look) if known is None else aim.point(task, layout, known)
        return cls(
            point,
            config.near,
            aim.contact,
            find if known is None else None,
            config.pointing,
            config.intent,
        )

    @classmethod
    def at_place(cls, place: tuple[float, ...], look: Look, weight: float) -> "Pointer":
        """Towards a point (3,) in metres, or over the surface in a static camera's pixel (2,).

        Raises:
            UserError: there is no such pixel, or nothing in it.
        """
        if len(place) == 3:
            return cls(np.array(place, dtype=np.float64), weight=weight)
        return cls(look.point_at(*place) + _OVER_SURFACE, weight=weight)

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

    def objectives(self, moment: Moment) -> Objectives:
        """What draws the hand, and once it is there what ranks the samples."""
        robot_obs = moment.obs["agent_pos"][0, -1].cpu().numpy()
        hand, opening = robot_obs[POSITION], float(robot_obs[GRIPPER_WIDTH])
        # Between the two distances nothing changes: the hand may work around the point.
        self.arrived = self._gap(hand) <= (AWAY * self.near if self.arrived else self.near)
        self.touched = self.arrived and self._touches(hand, opening)
        self.turned = self._turns(float(robot_obs[YAW]))
        if self.contact is None or not self.arrived:
            # Drawn samples all go to the point: ranking several would cost time for nothing.
            place = torch.from_numpy(self._way(hand)).float()
            return Objectives(draw=((Point(place), self.weight),))
        # A turn counts on a surface. Drawn on, the block would turn in the air.
        if self.contact == Contact() or self.turned:
            return Objectives()
        ranks = self._rank(self.contact, opening)
        return Objectives(self._draw(self.contact, ranks), rank=((ranks, self.weight),))

    def _way(self, hand: NDArray[np.floating]) -> NDArray[np.float64]:
        """The point; for a block still in the cabinet a place straight before it.

        The straight way to the drawer strikes the door with the block.
        """
        carries = self.contact is not None and self.contact.fingers == OPEN
        if not carries or self.point[1] > _OUTSIDE or hand[1] < _OUTSIDE:
            return self.point
        return np.array([hand[0], _OUTSIDE - TOUCHING, hand[2]], dtype=np.float64)

    def _gap(self, hand: NDArray[np.floating]) -> float:
        """Metres from the point; a hand that touched the thing may move along the intent."""
        gap, contact = hand - self.point, self.contact
        if not self.touched or contact is None or contact.touch is None or contact.toward is None:
            return float(np.linalg.norm(gap))
        along = np.array(contact.toward)
        # Farther on the task would be done. So the thing is lost, and is looked for again.
        if (gap - contact.touch) @ along > WAY:
            return math.inf
        return float(np.linalg.norm(gap - max(gap @ along, 0) * along))

    def _touches(self, hand: NDArray[np.floating], opening: float) -> bool:
        """Whether a hand at the point meets the thing, or has met it and stays."""
        if self.contact is None or self.contact.touch is None:
            return False
        if self.contact.grasps:
            return self.touched if opening < EMPTY else opening <= WIDE
        # What is pushed moves away from the place of contact, and the hand with it.
        gap = np.linalg.norm(hand - (self.point + self.contact.touch))
        return self.touched or bool(gap <= TOUCHING)

    def _turns(self, yaw: float) -> bool:
        """Whether the hand has turned the thing far enough since it touched it."""
        if self.contact is None or not self.touched:
            self._yaw_before = yaw
            return False
        turn = self.contact.turn * float(wrapped(np.asarray(yaw - self._yaw_before)))
        return self.turned or turn >= _TURNED

    def _rank(self, contact: Contact, opening: float) -> Objective:
        """What ranks the samples of a hand at the point."""
        if contact.grasps and opening < EMPTY:
            # A grasp begins over the thing with open fingers, and a missed one is begun again.
            return Intent(_UP, fingers=OPEN)
        if contact.touch is None or self.touched:
            # A thing between the fingers is proof enough of the policy's skill; a touch is none.
            least = -math.inf if contact.grasps else PUSH
            return Intent(contact.toward, contact.turn, contact.fingers, least=least)
        return Touch(torch.from_numpy(self.point + contact.touch).float())

    def _draw(self, contact: Contact, ranks: Objective) -> Weighted:
        """What draws a hand at the point: the way to the thing, and the motion with a grasped one.

        A blank network lifts and turns hardly anything by that. Drawn along a push, it would push.
        """
        if not self.intent:
            return ()
        if isinstance(ranks, Touch):
            return ((Touch(ranks.place, _FAR), self.intent),)
        return ((ranks, self.intent),) if contact.grasps else ()
