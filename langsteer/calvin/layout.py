"""The places of a scene's parts with every joint at zero; metres, world frame.

Drawer, door, button and switch sit elsewhere in each scene; the parts themselves are the same. So a
part's shape stands here once, and its place comes with the scene (`experts.view.read_layout`).

Example::

    layout = read_layout(env)
    layout.handle(slider=0.1)       # (3,) the middle of the door's handle
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.task import SIDES

TABLE_HEIGHT = 0.44
BLOCK_WIDTH = 0.04
"""All blocks are as wide and as high as this; only their lengths differ."""

DOOR_WIDTH = 0.28
DOOR_FRONT = 0.012
HANDLE_FRONT = -0.032
"""The door's front in y: beside its handle, and at it. Before it is free space."""
HANDLE_X = 0.14
HANDLE_HALF_WIDTH = 0.02
BUTTON_TOP = 0.038
"""Of a released button, above the origin of its link."""

BAR_BACK, BAR_FRONT = -0.22, -0.26
BAR_HALF_LENGTH, BAR_HEIGHT = 0.12, 0.043
"""The bar by which the drawer is pulled, from the origin of the drawer's link: its back and front
along y, half its length along x, and its middle along z."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Places of a scene's parts with every joint at zero.

    Attributes:
        slider, drawer, button, switch: (3,) origins of the links.
        switch_axis: (3,) unit vector; the switch turns on along it.
        slider_range, drawer_range, switch_range: largest joint values.
        colours: the blocks in the order of ``scene_obs``.
        half_lengths: colour to half the length of its block.
        surfaces: name to the lower and upper corner of the blocks' possible places.
    """

    slider: Vector
    drawer: Vector
    button: Vector
    switch: Vector
    switch_axis: Vector
    slider_range: float
    drawer_range: float
    switch_range: float
    colours: tuple[str, ...]
    half_lengths: Mapping[str, float]
    surfaces: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]

    def slot(self, side: str) -> Vector:
        """(3,) the middle of the cabinet's ``"left"`` or ``"right"`` half, on its shelf."""
        # The door opens the half it moved away from.
        middle = self.slider[0] - self.slider_range / 2
        if side == "right":
            middle += DOOR_WIDTH
        low, high = self.surfaces[f"slider_{side}"]
        return np.array([middle, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2])

    def open_slot(self, slider: float) -> Vector:
        """(3,) `slot` of the half that the door, at ``slider``, leaves open."""
        return self.slot("left" if slider < self.slider_range / 2 else "right")

    def half_of(self, x: float) -> str:
        """The half of the cabinet, ``"left"`` or ``"right"``, with its middle nearest to ``x``."""
        return min(SIDES, key=lambda side: abs(self.slot(side)[0] - x))

    def handle(self, slider: float) -> Vector:
        """(3,) the front of the door's handle with the door at ``slider``."""
        return np.array([self.slider[0] + HANDLE_X - slider, HANDLE_FRONT, self.slider[2]])

    def bar(self, drawer: float) -> Vector:
        """(3,) the middle of the drawer's bar with the drawer at ``drawer``."""
        x, y, z = self.drawer
        return np.array([x, y + (BAR_BACK + BAR_FRONT) / 2 - drawer, z + BAR_HEIGHT])
