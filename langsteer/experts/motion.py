"""Smooth motion in relative actions: a commanded pose on its way along one `Move` after another.

CALVIN's controller adds relative actions to a target pose and never looks back at the real arm.
`Hand` keeps the same sum, so it always knows the commanded pose. It steers the pose with limited
speed and acceleration: corners are rounded, starts and stops are soft, as a person's are.

Example::

    hand = Hand(tcp_position, tcp_euler, rng)
    action = hand.toward(Move((0.18, -0.2, 0.5)))    # (7,) float64, relative, within [-1, 1]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langsteer.calvin.angles import wrapped
from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT

if TYPE_CHECKING:
    from langsteer.experts.view import View

CONTROL_RATE = 30.0

OPEN, CLOSED = 1.0, -1.0

Vector = tuple[float, float, float]

# Per control step, so that speeds in m/s divide by the rate once.
_ACCELERATION = 0.0022
_TURN_ACCELERATION = 0.012
_TREMOR_MEMORY = 0.85
_TREMOR_FADES_WITHIN = 0.08


@dataclass(frozen=True)
class Move:
    """One leg of a path.

    Attributes:
        position: tcp goal, metres, world frame.
        euler: tcp orientation goal, radians, extrinsic XYZ; None keeps the commanded one.
        gripper: `OPEN` or `CLOSED`.
        speed: metres a second at most.
        radius: metres from the goal within which the next leg may begin; a small one stops there.
        wait: control steps to stay there, e.g. for the fingers to close.
        steady: no tremor, for pushing things.
        until: a test of the view; true ends the leg at once.
    """

    position: Vector
    euler: Vector | None = None
    gripper: float = CLOSED
    speed: float = 0.42
    radius: float = 0.01
    wait: int = 0
    steady: bool = False
    until: "Callable[[View], bool] | None" = None


class Hand:
    """The commanded pose of the tcp.

    Attributes:
        position: (3,) metres.
        euler: (3,) radians, unwrapped: the controller's target after the actions so far.
    """

    def __init__(
        self,
        position: np.ndarray,
        euler: np.ndarray,
        rng: np.random.Generator,
        tempo: float = 1.0,
        tremor: float = 0.0005,
    ) -> None:
        """Begin at rest at a pose.

        Args:
            position: (3,) metres, the tcp right after the environment's reset.
            euler: (3,) radians.
            rng: source of the tremor.
            tempo: factor on every speed.
            tremor: metres a step; the hand strays so far, in free space only.
        """
        self.position = np.array(position, dtype=np.float64)
        self.euler = np.array(euler, dtype=np.float64)
        self._rng, self.tempo, self._tremor = rng, tempo, tremor
        self._velocity = np.zeros(3)
        self._turn = np.zeros(3)
        self._drift = np.zeros(3)

    def toward(self, move: Move) -> np.ndarray:
        """The next relative action on the way to ``move``, (7,) float64 within [-1, 1]."""
        ahead = np.asarray(move.position) - self.position
        distance = float(np.linalg.norm(ahead))
        # The limit of one unit holds for each axis; half a unit to spare for the tremor.
        top = min(move.speed * self.tempo / CONTROL_RATE, 0.9 * METRES_PER_UNIT)
        # Brake in time: the arm follows the commanded pose with a lag and would overshoot.
        pace = min(top, _stopping_pace(distance, _ACCELERATION))
        wanted = ahead / max(distance, 1e-9) * pace
        # The change of velocity is limited, not the velocity alone: corners become round.
        self._velocity += _limited(wanted - self._velocity, _ACCELERATION)
        turn = self._turning(move, steps_left=distance / top)
        step = self._velocity + (0.0 if move.steady else self._tremble(distance))
        step = np.clip(step, -METRES_PER_UNIT, METRES_PER_UNIT)
        # The same sum as in the controller, so the next action starts from its target.
        self.position += step
        self.euler += turn
        return np.concatenate([step / METRES_PER_UNIT, turn / RADIANS_PER_UNIT, [move.gripper]])

    def has_reached(self, move: Move) -> bool:
        """Whether the commanded pose is at the goal of ``move``, within its radius."""
        near = np.linalg.norm(np.asarray(move.position) - self.position) <= move.radius
        return bool(near and np.all(np.abs(self._turn_left(move)) < 0.03 + 4 * move.radius))

    def _turn_left(self, move: Move) -> np.ndarray:
        if move.euler is None:
            return np.zeros(3)
        left = np.asarray(move.euler) - self.euler
        # Roll sits at ±π, and both signs are one orientation. Pitch and yaw stay as they are: the
        # long way round may be the wrist's only one.
        left[0] = wrapped(left[0])
        return left

    def _turning(self, move: Move, steps_left: float) -> np.ndarray:
        """Turn so as to arrive together with the hand."""
        left = self._turn_left(move)
        angle = float(np.linalg.norm(left))
        top = min(RADIANS_PER_UNIT * 0.9, angle / max(steps_left * 0.8, 1.0))
        pace = min(top, _stopping_pace(angle, _TURN_ACCELERATION))
        wanted = left / max(angle, 1e-9) * pace
        self._turn += _limited(wanted - self._turn, _TURN_ACCELERATION)
        return self._turn.copy()

    def _tremble(self, distance: float) -> np.ndarray:
        self._drift *= _TREMOR_MEMORY
        self._drift += self._rng.normal(0.0, self._tremor, 3)
        return self._drift * min(1.0, distance / _TREMOR_FADES_WITHIN)


def _stopping_pace(distance: float, acceleration: float) -> float:
    """The fastest pace to come to rest within ``distance`` at half the acceleration."""
    return float(np.sqrt(acceleration * distance))


def _limited(vector: np.ndarray, longest: float) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)
