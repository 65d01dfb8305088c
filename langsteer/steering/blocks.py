"""The block a task is about: its place, and its turn against a demonstrated one.

A cloud without colours cannot tell red from blue. So the place of a block comes from the cameras'
colours (`langsteer.steering.sight`), or from the simulator, if the steering may read that
(``steering.privileged=true``).

Example::

    scene = KnownScene(env.scene_obs, env.block_names)
    place = block_place("lift_red_block_table", scene)      # (4,) or None
    yaw_turn(demonstrated[YAW], place[YAW])
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.layout import TABLE_HEIGHT
from langsteer.calvin.scene_obs import SceneObs
from langsteer.calvin.task import COLOURS
from langsteer.errors import UserError

YAW = 3
_YAW_IN_POSE = 5


def colour_of(task: str) -> str | None:
    """The colour in a task's name, or None."""
    return next((colour for colour in COLOURS if f"_{colour}_" in task), None)


class OccludedError(UserError):
    """A block is hidden from both cameras."""


class Scene(Protocol):
    """The places of things at a moment, however they are known."""

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks with known places."""

    def place(self, name: str) -> NDArray[np.float64]:
        """(4,) float64: xyz in metres and yaw in radians of a block.

        Raises:
            OccludedError: it is unknown.
        """

    def drawer(self) -> float | None:
        """Joint value of the drawer in metres; None if unknown."""

    def slider(self) -> float | None:
        """Joint value of the door in metres; None if unknown."""


@dataclass(frozen=True)
class KnownScene:
    """The simulator's state, for a privileged steering.

    Attributes:
        scene_obs: (24,) now.
        block_names: of its blocks in their order, `CalvinEnv.block_names`.
    """

    scene_obs: NDArray[np.floating]
    block_names: tuple[str, ...]

    def place(self, name: str) -> NDArray[np.float64]:
        """(4,) float64: xyz in metres and yaw in radians of a block."""
        pose = self._scene.blocks[self.block_names.index(name)]
        return np.array([*pose[:3], pose[_YAW_IN_POSE]])

    def drawer(self) -> float:
        """Joint value of the drawer in metres."""
        return self._scene.drawer

    def slider(self) -> float:
        """Joint value of the door in metres."""
        return self._scene.slider

    @property
    def _scene(self) -> SceneObs:
        return SceneObs(np.asarray(self.scene_obs, dtype=np.float64))


def block_place(task: str, scene: Scene | None) -> NDArray[np.float64] | None:
    """The place of the block a task is about.

    A colour in the task's name tells the block. Without one, stacking means the block nearest below
    the held one, unstacking means the highest, and pushing into the drawer means the one on the
    table nearest to its front edge.

    Args:
        task: one of CALVIN's.
        scene: None if it may not be read.

    Returns:
        (4,) float64: xyz in metres and yaw in radians; None if the task needs no block's place.

    Raises:
        UserError: the task is about a block, and the scene may not be read.
        OccludedError: the block is hidden.
    """
    colour = colour_of(task)
    if colour is None and task not in _CHOICES:
        return None
    if scene is None:
        which = "a" if colour is None else f"the {colour}"
        raise UserError(
            f"steering towards {task} needs the place of {which} block, which a cloud without "
            "colours cannot tell; set steering.privileged=true to read it from the simulator "
            "(results keep that)"
        )
    if colour is not None:
        return scene.place(f"block_{colour}")
    choose, least = _CHOICES[task]
    places = [scene.place(name) for name in scene.block_names]
    if len(places) < least:
        raise OccludedError(f"{task}: too few blocks are seen to choose one; move the arm away")
    return choose(places)


Places = list[NDArray[np.float64]]


def _highest(places: Places) -> NDArray[np.float64]:
    return max(places, key=lambda place: float(place[2]))


def _stacked_upon(places: Places) -> NDArray[np.float64]:
    held = _highest(places)
    others = [place for place in places if place is not held]
    return min(others, key=lambda place: float(np.linalg.norm(place[:2] - held[:2])))


def _nearest_to_edge(places: Places) -> NDArray[np.float64]:
    on_table = [place for place in places if place[2] > TABLE_HEIGHT]
    return min(on_table or places, key=lambda place: float(place[1]))


_CHOICES: dict[str, tuple[Callable[[Places], NDArray[np.float64]], int]] = {
    "stack_block": (_stacked_upon, 2),
    "unstack_block": (_highest, 1),
    "push_into_drawer": (_nearest_to_edge, 1),
}
"""The choice of a block for a task without a named one, and the fewest blocks to choose among."""


def yaw_turn(before: float, after: float) -> float:
    """The smallest turn between two yaws of a block, in [-pi/2, pi/2): half a turn looks alike."""
    return (after - before + math.pi / 2) % math.pi - math.pi / 2
