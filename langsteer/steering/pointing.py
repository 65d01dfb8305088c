"""The aim of each of the 34 tasks: one point for the hand, and the intent there.

The table says WHAT, and leaves HOW to the policy: a position without rotation, gripper or sequence,
and beside it an intent. The point lies before the thing rather than in it, so going there does no
task by itself. docs/steering.md has the success of a blank network at these points.

Example::

    aim = aim_of("open_drawer")
    aim.point("open_drawer", layout, scene)     # (3,) metres
    aim_of("push_red_block_left").contact.toward  # (-1.0, 0.0, 0.0)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.layout import BUTTON_TOP, TABLE_HEIGHT, Layout
from langsteer.calvin.scene_obs import LEVER_FROM_ABOVE, LEVER_FROM_BELOW
from langsteer.calvin.task import checked_task
from langsteer.steering.blocks import Scene, block_place
from langsteer.steering.waypoints import without_block

Place = NDArray[np.float64]
Offset = tuple[float, float, float]

OPEN, CLOSED = 1.0, -1.0
_LEFT, _RIGHT = (-1.0, 0.0, 0.0), (1.0, 0.0, 0.0)
_OUT, _UP = (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
_UP_AND_OUT = (0.0, -0.6, 0.8)
_OVER = (0.0, 0.0, 0.06)
_GRIP = (0.0, 0.0, -0.05)
"""From a block to the point over it, where the hand has room to turn; from there to the grip."""

_LEVER_ACROSS = -0.05
"""For a switch on the right the arm reaches the lever from the left side alone."""
_DRAWER_MIDDLE = -0.165
"""The y of the middle of an opened drawer's visible part at joint value 0; half a pull further."""


@dataclass(frozen=True)
class Contact:
    """The intent at the point: where the hand touches the thing, and how it moves from then on.

    Attributes:
        touch: (3,) metres from the point to the tcp's place of contact; None: the contact is made.
        grasps: whether contact means a thing between the fingers, rather than a hand at the place.
        toward: (3,) unit vector of the motion after contact, of the hand and of the thing in it;
            None: anywhere.
        turn: 1 counterclockwise, seen from above, -1 clockwise, 0 anyhow; after contact.
        fingers: the gripper's command after contact, `OPEN` or `CLOSED`; None: either.
    """

    touch: Offset | None = None
    grasps: bool = False
    toward: Offset | None = None
    turn: int = 0
    fingers: float | None = None


@dataclass(frozen=True)
class Aim:
    """The aim of a kind of task.

    Attributes:
        thing: a key of `_PLACES`.
        offset: (3,) metres from the thing to the tcp's point.
        contact: the intent there, if the place alone does not decide the task. Of eight random ways
            one fits an intent, so a push counts only ways that are long enough (`pointer.PUSH`).
    """

    thing: str
    offset: Offset
    contact: Contact = Contact()

    def point(self, task: str, layout: Layout, scene: Scene) -> Place:
        """(3,) metres, world frame: the point for the tcp.

        Raises:
            OccludedError: the task's block is not seen.
        """
        return _PLACES[self.thing](task, layout, scene) + np.array(self.offset)


_AIMS = {
    # A pull begins behind the bar, a push before it: the place decides, and nothing more is said.
    "open_drawer": Aim("bar", (0.0, 0.035, 0.02)),
    "close_drawer": Aim("bar", (0.0, -0.06, 0.01)),
    # The handle is pushed from its side; before the door, for the hand comes from there.
    "move_slider_left": Aim("handle", (0.06, 0.02, 0.0)),
    "move_slider_right": Aim("handle", (-0.06, 0.02, 0.0)),
    # The tips seven centimetres over the button: lower, a blank network pressed it twice as often.
    # Button and lever get no intent: ranked by one, random steps press and lift them, too.
    "turn_on_led": Aim("button", (0.0, 0.0, 0.08)),
    "turn_off_led": Aim("button", (0.0, 0.0, 0.08)),
    # Before the lever, on the side from which it is moved; a touch alone may move it.
    "turn_on_lightbulb": Aim("lever", (0.0, LEVER_FROM_BELOW[1] - 0.035, 0.02)),
    "turn_off_lightbulb": Aim("lever", (0.0, LEVER_FROM_ABOVE[1] - 0.02, 0.08)),
    # Over the block: the place is the same for left and right, the turn decides.
    "rotate_left": Aim("block", _OVER, Contact(_GRIP, True, turn=1, fingers=CLOSED)),
    "rotate_right": Aim("block", _OVER, Contact(_GRIP, True, turn=-1, fingers=CLOSED)),
    # Beside the block, on the side it is pushed from.
    "push_left": Aim(
        "block", (0.07, 0.0, 0.02), Contact((-0.03, 0.0, -0.02), toward=_LEFT, fingers=CLOSED)
    ),
    "push_right": Aim(
        "block", (-0.07, 0.0, 0.02), Contact((0.03, 0.0, -0.02), toward=_RIGHT, fingers=CLOSED)
    ),
    "push_into_drawer": Aim("block", (0.0, 0.05, 0.03), Contact(toward=_OUT)),
    # Over the block, as for a turn; rising with closed fingers makes it a lift.
    "lift_table": Aim("block", _OVER, Contact(_GRIP, True, _UP, fingers=CLOSED)),
    # In the cabinet away from its back, too: CALVIN counts a place only if the hand touches nothing
    # but the block when the task begins.
    "lift_slider": Aim(
        "block", (0.0, -0.02, 0.03), Contact((0.0, 0.02, -0.03), True, _UP_AND_OUT, fingers=CLOSED)
    ),
    "lift_drawer": Aim("block", _OVER, Contact(_GRIP, True, _UP, fingers=CLOSED)),
    "unstack_block": Aim("block", _OVER, Contact(_GRIP, True, _UP, fingers=CLOSED)),
    # A block in hand: over its future place, and let go.
    "stack_block": Aim("block", (0.0, 0.0, 0.08), Contact(fingers=OPEN)),
    "place_in_slider": Aim("slot", (0.0, -0.03, 0.06), Contact(fingers=OPEN)),
    "place_in_drawer": Aim("inside", (0.0, 0.0, 0.02), Contact(fingers=OPEN)),
}


def aim_of(task: str) -> Aim:
    """The aim of a task.

    Raises:
        UserError: no task has this name.
    """
    return _AIMS[without_block(checked_task(task))]


def _block(task: str, _layout: Layout, scene: Scene) -> Place:
    place = block_place(task, scene)
    assert place is not None  # the table asks for a block where the task is about one
    return place[:3]


def _drawer(task: str, layout: Layout, scene: Scene) -> float:
    """Its joint value; if it is not seen, as the task's own condition says."""
    seen = scene.drawer()
    implied = 0.0 if task == "open_drawer" else layout.drawer_range
    return implied if seen is None else seen


def _slider(task: str, layout: Layout, scene: Scene) -> float:
    """Likewise. The handle hides behind the arm at the left."""
    seen = scene.slider()
    implied = 0.0 if task == "move_slider_left" else layout.slider_range
    return implied if seen is None else seen


def _bar(task: str, layout: Layout, scene: Scene) -> Place:
    return layout.bar(_drawer(task, layout, scene))


def _inside(task: str, layout: Layout, scene: Scene) -> Place:
    y = _DRAWER_MIDDLE - _drawer(task, layout, scene) / 2
    return np.array([layout.drawer[0], y, TABLE_HEIGHT])


def _handle(task: str, layout: Layout, scene: Scene) -> Place:
    return layout.handle(_slider(task, layout, scene))


def _slot(task: str, layout: Layout, scene: Scene) -> Place:
    return layout.open_slot(_slider(task, layout, scene))


def _lever(task: str, layout: Layout, _scene: Scene) -> Place:
    """Its joint follows from the task: a light to turn on is off."""
    value = layout.switch_range if task == "turn_off_lightbulb" else 0.0
    across = np.array([_LEVER_ACROSS if layout.switch[0] > 0 else 0.0, 0.0, 0.0])
    return layout.switch + across + layout.switch_axis * value


def _button(_task: str, layout: Layout, _scene: Scene) -> Place:
    return layout.button + np.array([0.0, 0.0, BUTTON_TOP])


_PLACES: dict[str, Callable[[str, Layout, Scene], Place]] = {
    "block": _block,
    "bar": _bar,
    "inside": _inside,
    "handle": _handle,
    "slot": _slot,
    "lever": _lever,
    "button": _button,
}
