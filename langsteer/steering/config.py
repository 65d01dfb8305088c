"""The steering configuration: names, types and bounds of ``conf/steering/*.yaml``.

Example::

    config = SteeringConfig.from_dict({"name": "best_of_n", "reference": 1.0, "samples": 16})
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from langsteer.errors import UserError
from langsteer.steering.embedding import ENCODERS
from langsteer.steering.guidance import SCHEDULES, Strength


@dataclass(frozen=True)
class SteeringConfig:
    """How a policy is steered; all parts compose.

    Attributes:
        name: of the choice, for tables.
        reference: weight of nearness to demonstrated paths; 0 leaves it out.
        value_map: weight of the map of places to go to and to avoid; 0 leaves it out.
        strength: of the gradient, s of `guidance.GradientGuidance`; 0 is no gradient.
        schedule: of `guidance.SCHEDULES`.
        start: index of the first guided step.
        unguided_last: last steps that are left to the network.
        repetitions: of each guided step (`guidance.StochasticGuidance`); 1 is plain guidance.
        samples: N trajectories drawn, of which the best by the same objective is executed.
        demonstrations: a CALVIN folder or a saved library, for ``reference``.
        candidates: demonstrations that are followed at once, the nearest first.
        temperature: in square metres, how softly one of them is chosen.
        avoidance: weight of staying clear of what is not to be touched, in ``value_map``.
        privileged: whether joints and blocks may be read from the simulator; kept in results.
        encoder: of instructions: auto, minilm or lexical.
        plugin: a reader of instructions of your own, ``"package.module:function"``.
    """

    name: str = "none"
    reference: float = 0.0
    value_map: float = 0.0
    strength: float = 0.0
    schedule: str = "constant"
    start: int = 0
    unguided_last: int = 2
    repetitions: int = 1
    samples: int = 1
    demonstrations: str | None = None
    candidates: int = 4
    temperature: float = 0.01
    avoidance: float = 1.0
    privileged: bool = False
    encoder: str = "auto"
    plugin: str | None = None

    def __post_init__(self) -> None:
        for name in ("reference", "value_map", "strength", "avoidance"):
            self._require(0 <= getattr(self, name) < math.inf, name, "a number from 0 on")
        for name in ("repetitions", "samples", "candidates"):
            self._require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("start", "unguided_last"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        self._require(0 < self.temperature < math.inf, "temperature", "a number above 0")
        self._require(self.schedule in SCHEDULES, "schedule", "one of " + ", ".join(SCHEDULES))
        self._require(self.encoder in ENCODERS, "encoder", "one of " + ", ".join(ENCODERS))
        if self.steers and not (self.reference or self.value_map):
            raise UserError(
                "steering.strength and steering.samples need an objective: set steering.reference "
                "or steering.value_map above 0"
            )
        if self.steers and self.reference and self.demonstrations is None:
            raise UserError(
                "steering.demonstrations: missing; name the CALVIN folder whose demonstrations are "
                "the reference (scripts/collect_demos.py makes one), or a library saved from one"
            )

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise UserError(f"steering.{name}={getattr(self, name)!r}: expected {expected}")

    @property
    def steers(self) -> bool:
        """Whether anything differs from the policy's own prediction."""
        return self.strength > 0 or self.samples > 1

    @property
    def strength_by_step(self) -> Strength:
        """When and how strongly the gradient acts."""
        return Strength(self.strength, self.schedule, self.start, self.unguided_last)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SteeringConfig":
        """The config of plain values; an unknown key or a wrong type raises `UserError`."""
        types = {field.name: field.type for field in fields(cls)}
        for key, value in values.items():
            if key not in types:
                near = difflib.get_close_matches(key, types, n=1)
                hint = f"; did you mean steering.{near[0]}?" if near else ""
                raise UserError(f"steering.{key}: unknown key{hint}")
            accepted = _ACCEPTED[str(types[key])]
            if type(value) not in accepted:
                names = " or ".join(kind.__name__ for kind in accepted)
                raise UserError(f"steering.{key}={value!r}: expected {names}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results."""
        return asdict(self)


_ACCEPTED: dict[str, tuple[type, ...]] = {
    str(str): (str,),
    str(float): (float, int),
    str(int): (int,),
    str(bool): (bool,),
    str(str | None): (str, type(None)),
}
