"""CALVIN's ``scene_obs``, the state of the play table in 24 numbers, and its parts' travel.

Example::

    scene = SceneObs.at_rest(drawer=DRAWER_RANGE)
    scene.drawer                    # 0.22
    scene.blocks[0, :3] = position  # writes into scene.vector, the (24,) array
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BLOCKS = 3
BLOCK_POSE_SIZE = 6
"""xyz in metres and extrinsic XYZ Euler angles in radians."""

_SLIDER, _DRAWER, _BUTTON, _SWITCH, _LIGHTBULB, _LED = range(6)
_FIRST_BLOCK = 6
SCENE_OBS_SIZE = _FIRST_BLOCK + N_BLOCKS * BLOCK_POSE_SIZE

SLIDER_RANGE, DRAWER_RANGE, SWITCH_RANGE = 0.28, 0.22, 0.088
"""Largest joint values in metres: door at the left, drawer open, bulb on. They are the limits in
the URDFs of all scenes, but for the doors of B (0.304 m) and C (0.24 m)."""

# From the origin of the switch's link, for a closed hand with its tcp 12 mm above the tips.
LEVER_FROM_BELOW = (0.0, -0.085, 0.012)
LEVER_FROM_ABOVE = (0.0, -0.045, 0.055)
"""The tcp touching the lever, to push it up and down; metres."""
BEFORE_LEVER_FROM_BELOW = (0.0, -0.07, 0.015)
BEFORE_LEVER_FROM_ABOVE = (0.0, -0.035, 0.045)
"""From there back to free space before the lever; metres."""


@dataclass(frozen=True)
class SceneObs:
    """Names for the numbers of a ``scene_obs``; a view, so writing to `blocks` writes to `vector`.

    Attributes:
        vector: (24,) float64: slider, drawer, button, switch in metres; bulb, LED 0 or 1; the pose
            (6,) of each block. The order of the blocks differs from scene to scene.
    """

    vector: NDArray[np.float64]

    @classmethod
    def at_rest(
        cls,
        slider: float = 0.0,
        drawer: float = 0.0,
        switch: float = 0.0,
        lightbulb: float = 0.0,
        led: float = 0.0,
    ) -> "SceneObs":
        """A new one with the button released and all blocks at the origin."""
        vector = np.zeros(SCENE_OBS_SIZE)
        vector[:_FIRST_BLOCK] = slider, drawer, 0.0, switch, lightbulb, led
        return cls(vector)

    @property
    def slider(self) -> float:
        """Joint value of the sliding door in metres, 0 at the right."""
        return float(self.vector[_SLIDER])

    @property
    def drawer(self) -> float:
        """Joint value of the drawer in metres, 0 when closed."""
        return float(self.vector[_DRAWER])

    @property
    def button(self) -> float:
        """Joint value of the LED's button in metres, 0 when released."""
        return float(self.vector[_BUTTON])

    @property
    def switch(self) -> float:
        """Joint value of the bulb's switch in metres, 0 when off."""
        return float(self.vector[_SWITCH])

    @property
    def joints(self) -> NDArray[np.float64]:
        """(4,) slider, drawer, button and switch in metres; a view."""
        return self.vector[: _SWITCH + 1]

    @property
    def lights(self) -> NDArray[np.float64]:
        """(2,) bulb and LED, 0 or 1 in a valid observation; a view."""
        return self.vector[_LIGHTBULB : _LED + 1]

    @property
    def lightbulb(self) -> bool:
        """Whether the bulb is lit."""
        return bool(self.vector[_LIGHTBULB] > 0.5)

    @property
    def led(self) -> bool:
        """Whether the LED is lit."""
        return bool(self.vector[_LED] > 0.5)

    @property
    def blocks(self) -> NDArray[np.float64]:
        """(3, 6) poses of the blocks: metres and radians; a view."""
        return self.vector[_FIRST_BLOCK:].reshape(-1, BLOCK_POSE_SIZE)
