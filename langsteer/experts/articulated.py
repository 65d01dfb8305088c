"""Skills for the parts on joints: drawer, sliding door, button and switch.

Numbers are metres in a part's own frame (see `Layout`), measured on CALVIN's meshes; fingers are
closed and the tcp is 12 mm above their tips.
"""

import numpy as np

from langsteer.calvin.layout import BAR_HEIGHT, BUTTON_TOP
from langsteer.calvin.scene_obs import (
    BEFORE_LEVER_FROM_ABOVE,
    BEFORE_LEVER_FROM_BELOW,
    LEVER_FROM_ABOVE,
    LEVER_FROM_BELOW,
)
from langsteer.experts.motion import Move
from langsteer.experts.skill import Plan, Planner, Scene
from langsteer.experts.view import View

DOWN = np.pi
"""Roll of a gripper pointing down."""
ACROSS = np.pi / 2
"""Yaw of the arm at rest: the fingers open along x."""

# Drawer: the handle's bar is 0.24 long, its back 0.22 and its front 0.26 before the frame.
_BEHIND_BAR = -0.207
_BEFORE_BAR = -0.272

# Door: the handle is 0.04 wide and stands out to y = -0.03.
_HANDLE_HALF = 0.031
_HANDLE_Y = -0.007
_HANDLE_Z = 0.536


def _pointing_down(scene: Scene, yaw: float = ACROSS) -> tuple[float, float, float]:
    return (DOWN, scene.vary(-0.04, 0.04), yaw + scene.vary(-0.08, 0.08))


def open_drawer(scene: Scene) -> Plan:
    """Reach behind the handle's bar and pull."""
    x = scene.view.layout.drawer[0] + scene.vary(-0.06, 0.06)
    z = scene.view.layout.drawer[2] + BAR_HEIGHT + scene.vary(-0.005, 0.006)
    y = _BEHIND_BAR - scene.view.state.drawer
    euler = _pointing_down(scene)
    yield Move((x, y, z + scene.vary(0.09, 0.14)), euler, radius=0.02)
    yield Move((x, y, z), euler, speed=0.33, radius=0.008)
    goal = scene.view.layout.drawer_range * scene.vary(0.84, 1.0)
    yield Move((x, _BEHIND_BAR - goal - 0.015, z), euler, speed=0.33, radius=0.01)
    y = _BEHIND_BAR - scene.view.state.drawer
    yield Move((x, y, z + scene.vary(0.08, 0.12)), euler, radius=0.03)


def close_drawer(scene: Scene) -> Plan:
    """Push the handle's bar from its front."""
    x = scene.view.layout.drawer[0] + scene.vary(-0.07, 0.07)
    z = scene.view.layout.drawer[2] + BAR_HEIGHT + scene.vary(-0.005, 0.006)
    y = _BEFORE_BAR - scene.view.state.drawer - scene.vary(0.02, 0.035)
    euler = _pointing_down(scene)
    yield Move((x, y, z + scene.vary(0.1, 0.14)), euler, radius=0.02)
    yield Move((x, y, z), euler, speed=0.33, radius=0.012)
    goal = scene.view.layout.drawer_range * scene.vary(0.0, 0.12)
    yield Move((x, _BEFORE_BAR - goal + 0.015, z), euler, speed=0.33)
    y = scene.view.tcp[1] - 0.02
    yield Move((x, y, z + scene.vary(0.08, 0.12)), euler, radius=0.03)


def _move_slider(direction: int) -> Planner:
    def plan(scene: Scene) -> Plan:
        """Push the handle from its side; the joint grows to the left."""
        layout = scene.view.layout
        z = _HANDLE_Z + scene.vary(-0.012, 0.012)
        side = _HANDLE_HALF if direction > 0 else -_HANDLE_HALF

        def beside(value: float) -> float:
            return float(layout.handle(value)[0] + side)

        x = beside(scene.view.state.slider) + direction * scene.vary(0.025, 0.045)
        y = _HANDLE_Y + scene.vary(-0.006, 0.004)
        euler = _pointing_down(scene)
        yield Move((x, y - 0.05, z + scene.vary(0.02, 0.07)), euler, radius=0.025)
        yield Move((x, y, z), euler, speed=0.33, radius=0.01)
        share = scene.vary(0.88, 1.0)
        goal = layout.slider_range * (share if direction > 0 else 1 - share)
        yield Move((beside(goal) - direction * 0.015, y, z), euler, speed=0.36, steady=True)
        back = scene.view.tcp
        end = (back[0] + direction * 0.03, back[1] - 0.06, z + scene.vary(0.03, 0.06))
        yield Move(end, euler, radius=0.03)

    return plan


def press_button(scene: Scene) -> Plan:
    """Press the button once; it toggles the LED."""
    layout = scene.view.layout
    x = layout.button[0] + scene.vary(-0.008, 0.008)
    y = layout.button[1] + scene.vary(-0.008, 0.008)
    top = layout.button[2] + BUTTON_TOP
    euler = _pointing_down(scene)
    yield Move((x, y, top + scene.vary(0.04, 0.08)), euler, radius=0.015)

    def is_pressed(view: View) -> bool:
        return view.state.button > 0.016

    yield Move((x, y, top - 0.035), euler, speed=0.25, radius=0.004, until=is_pressed)
    yield Move((x, y, top + scene.vary(0.05, 0.09)), euler, radius=0.02)


def _use_switch(on: bool) -> Planner:
    def plan(scene: Scene) -> Plan:
        """Push the lever up from below, or down from above, with a tilted gripper."""
        layout = scene.view.layout
        # Far to the right the arm reaches the lever only with the gripper tilted towards it. A
        # finger from below must point at it, lest it slip off.
        right = layout.switch[0] > 0
        if right:
            pitch = scene.vary(-0.88, -0.74)
        else:
            pitch = scene.vary(-0.75, -0.6) if on else scene.vary(-0.12, 0.05)
        yaw = 1.24 if right else ACROSS
        euler = (DOWN, pitch, yaw + scene.vary(-0.05, 0.05))
        across = scene.vary(-0.058, -0.045) if right else scene.vary(-0.03, 0.02)
        axis = layout.switch_axis * (1 if on else -1)
        lever = (
            layout.switch
            + np.array([across, 0.0, 0.0])
            + layout.switch_axis * scene.view.state.switch
        )
        contact = lever + np.array(LEVER_FROM_BELOW if on else LEVER_FROM_ABOVE)
        before = contact + np.array(BEFORE_LEVER_FROM_BELOW if on else BEFORE_LEVER_FROM_ABOVE)
        yield Move(_vector(before), euler, radius=0.015)
        yield Move(_vector(contact), euler, speed=0.3, radius=0.008)
        left = layout.switch_range - scene.view.state.switch if on else scene.view.state.switch

        def is_done(view: View) -> bool:
            share = view.state.switch / layout.switch_range
            return share > 0.93 if on else share < 0.07

        goal = contact + axis * (left + 0.03) + (_INWARDS if on else 0.0)
        yield Move(_vector(goal), euler, speed=0.36, radius=0.006, steady=True, until=is_done)
        away = scene.view.tcp + np.array([0.0, -0.06, 0.01 if on else 0.03])
        yield Move(_vector(away), euler, radius=0.03)
        level = (DOWN, 0.0, ACROSS)
        yield Move(
            _vector(away + np.array([-0.04 if right else 0.04, -0.04, 0.04])), level, radius=0.04
        )

    return plan


_INWARDS = np.array([0.0, 0.016, 0.0])


def _vector(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


PLANNERS: dict[str, Planner] = {
    "open_drawer": open_drawer,
    "close_drawer": close_drawer,
    "move_slider_left": _move_slider(1),
    "move_slider_right": _move_slider(-1),
    "turn_on_led": press_button,
    "turn_off_led": press_button,
    "turn_on_lightbulb": _use_switch(on=True),
    "turn_off_lightbulb": _use_switch(on=False),
}
