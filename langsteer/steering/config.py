"""The steering configuration: names, types and bounds of ``conf/steering/*.yaml``.

Example::

    config = SteeringConfig.from_dict({"name": "best_of_n", "reference": 1.0, "samples": 16})
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from langsteer.errors import UserError
from langsteer.settings import Count, Natural, NonNegative, Positive, Settings, one_of
from langsteer.steering.embedding import ENCODERS

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "rising": lambda progress: progress,
    "falling": lambda progress: 1.0 - progress,
}
"""Factor of the strength by progress through the denoising steps: 0 at the first, 1 at the last."""


@dataclass(frozen=True)
class Strength:
    """How strong guidance is at each step.

    Attributes:
        strength: s; 0 is no guidance at all.
        schedule: of `SCHEDULES`.
        start: index of the first guided step; 0 is the noisiest.
        unguided_last: number of steps without guidance at the end. With 0 guidance has the last
            word over the network, and the result replays the reference.
    """

    strength: float = 1.0
    schedule: str = "constant"
    start: int = 0
    unguided_last: int = 2

    def at(self, index: int, total: int) -> float:
        """s at step ``index`` of ``total``."""
        if not self.start <= index < total - self.unguided_last:
            return 0.0
        return self.strength * SCHEDULES[self.schedule](index / max(total - 1, 1))


@dataclass(frozen=True)
class SteeringConfig(Settings, prefix="steering."):
    """How to steer a policy; all parts compose.

    Attributes:
        name: of the choice, for tables.
        reference: weight of nearness to demonstrated paths; 0 leaves it out.
        value_map: weight of the map of places to seek and to avoid; 0 leaves it out.
        pointing: weight of the one point that the sentence is about; 0 leaves it out.
        intent: weight, in the gradient, of what `pointer.Pointer` draws once the hand is there: the
            way to the thing and the motion with a grasped one; 0 only ranks.
        near: metres from the point at which drawing ends.
        point: go to this point and stay there: (3,) metres, or a pixel (2,) of the static camera,
            from the top left corner. No sentence is read.
        strength: of the gradient, s of `guidance.GradientGuidance`; 0 is no gradient.
        schedule: of `SCHEDULES`.
        start: index of the first guided step.
        unguided_last: number of last steps without guidance.
        repetitions: of each guided step (`guidance.StochasticGuidance`); 1 is plain guidance.
        samples: N trajectories drawn; the best by the same objective is executed.
        demonstrations: a CALVIN folder or a saved library, for ``reference``.
        candidates: number of demonstrations to follow at once, the nearest first.
        temperature: of the soft choice among them, square metres; near 0 the nearest alone counts.
        avoidance: in ``value_map``, weight of the distance to things not to touch.
        privileged: whether joints and blocks may be read from the simulator; kept in results.
            ``pointing`` sees them by the robot's cameras instead.
        encoder: of instructions: auto, minilm or lexical.
        plugin: a reader of instructions of your own, ``"package.module:function"``.
    """

    name: str = "none"
    reference: NonNegative = 0.0
    value_map: NonNegative = 0.0
    pointing: NonNegative = 0.0
    intent: NonNegative = 0.0
    near: Positive = 0.05
    point: tuple[float, ...] | None = None
    strength: NonNegative = 0.0
    schedule: Annotated[str, one_of(*SCHEDULES)] = "constant"
    start: Natural = 0
    unguided_last: Natural = 2
    repetitions: Count = 1
    samples: Count = 1
    demonstrations: str | None = None
    candidates: Count = 4
    temperature: Positive = 0.01
    avoidance: NonNegative = 1.0
    privileged: bool = False
    encoder: Annotated[str, one_of(*ENCODERS)] = "auto"
    plugin: str | None = None

    def check(self) -> None:
        """Raise `UserError` for a steering without its objective or its demonstrations."""
        if self.steers and not (self.pointing or self.reference or self.value_map):
            raise UserError(
                "steering.strength and steering.samples need an objective: set steering.pointing, "
                "steering.reference or steering.value_map above 0"
            )
        fits = self.point is None or len(self.point) in (2, 3)
        self.require(fits, "point", "[x,y,z] in metres or a pixel [u,v] of the static camera")
        alone = self.point is None or (self.pointing and not (self.reference or self.value_map))
        self.require(bool(alone), "point", "null, or steering=pointing")
        if self.steers and self.reference and self.demonstrations is None:
            raise UserError(
                "steering.demonstrations: missing; name the CALVIN folder whose demonstrations are "
                "the reference (scripts/collect_demos.py makes one), or a library saved from one"
            )

    @property
    def steers(self) -> bool:
        """Whether anything differs from the policy's own prediction."""
        return self.strength > 0 or self.samples > 1

    @property
    def points(self) -> bool:
        """Whether something is pointed at."""
        return self.steers and self.pointing > 0

    @property
    def strength_by_step(self) -> Strength:
        """When and how strongly the gradient acts."""
        return Strength(self.strength, self.schedule, self.start, self.unguided_last)
