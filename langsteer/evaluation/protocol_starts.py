"""Scenes that attempts under a paper's protocol begin with; each is drawn for one behaviour.

As read in DynaGuide's ``core/calvin_utils.py`` and configurations, and in VLS's ``configs/``;
docs/protocols.md names the commits, and what differs here.

Example::

    scene_obs = paper_scene("vls", "open_drawer", read_layout(env), np.random.default_rng(0))
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.layout import Layout
from langsteer.calvin.scene_obs import SLIDER_RANGE, SWITCH_RANGE, SceneObs
from langsteer.calvin.task import COLOURS
from langsteer.evaluation.protocols import behaviour_of
from langsteer.experts.starts import put_blocks

_PARTS = ("slider", "drawer", "switch", "led")
_PLACES = ("table", "slider_left", "slider_right")


@dataclass(frozen=True)
class Setting:
    """A paper's start.

    Attributes:
        slider, drawer, switch: joint values in metres of the far end: left, open, on.
        far: which parts are at their far end; None: each at random.
        in_cabinet: whether blocks lie in the cabinet, too.
        displaces_hand: whether the hand leaves CALVIN's initial pose.
    """

    slider: float
    drawer: float
    switch: float
    far: Mapping[str, bool] | None
    in_cabinet: bool
    displaces_hand: bool


SETTINGS = {
    "dynaguide": Setting(0.27, 0.16, SWITCH_RANGE, None, in_cabinet=True, displaces_hand=True),
    "vls": Setting(
        SLIDER_RANGE,
        0.15,
        0.08,
        {"slider": False, "drawer": True, "switch": True, "led": False},
        in_cabinet=False,
        displaces_hand=False,
    ),
}


def paper_scene(
    protocol: str, task: str, layout: Layout, random: np.random.Generator
) -> NDArray[np.float64]:
    """``scene_obs`` (24,) of a start in which the behaviour of ``task`` can happen.

    Raises:
        UserError: the papers have no such behaviour.
    """
    setting, asked = SETTINGS[protocol], behaviour_of(task)
    far = dict(setting.far or {part: bool(random.integers(2)) for part in _PARTS})
    is_block = asked.thing not in far
    # Only a part at its other end can move as asked. Beside blocks the door stands at the right.
    far["slider" if is_block else asked.thing] = not is_block and not asked.forward
    scene = SceneObs.at_rest(
        far["slider"] * setting.slider,
        far["drawer"] * setting.drawer,
        far["switch"] * setting.switch,
        float(far["switch"]),
        float(far["led"]),
    )
    put_blocks(scene, _places(setting.in_cabinet and not is_block, random), layout, random)
    return scene.vector


def _places(in_cabinet: bool, random: np.random.Generator) -> dict[str, str]:
    """A surface for each colour: the table, or any, with room for one block in each half."""
    places = ["table"] * len(COLOURS)
    while in_cabinet:
        places = [str(place) for place in random.choice(_PLACES, len(COLOURS))]
        in_cabinet = any(places.count(half) > 1 for half in _PLACES[1:])
    return dict(zip(COLOURS, places, strict=True))
