"""The scene built into LangSteer: CALVIN's scene D in plain shapes, with no download.

Table, blocks and floor ship with the package. The arm is the Panda of ``pybullet_data`` with
CALVIN's longer fingertips, gripper camera and tcp; its links have CALVIN's numbers and frames. Its
URDF is put together on loading, since it names meshes by absolute paths.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langsteer.calvin.task import BLOCKS
from langsteer.envs.scene import BUILTIN, BlockConfig, LightConfig, SceneConfig

_ASSETS = Path(__file__).with_name("assets") / "builtin"


def builtin_scene() -> SceneConfig:
    """The built-in scene; joints, surfaces, blocks and their order are those of scene D."""
    return SceneConfig(
        name=BUILTIN,
        robot_urdf=_panda_urdf,
        robot_base_position=(-0.34, -0.46, 0.24),
        robot_base_euler=(0.0, 0.0, 0.0),
        robot_initial_joints=(
            -1.21779206,
            1.03987646,
            2.11978261,
            -2.34205014,
            -0.87015947,
            1.64119353,
            0.55344866,
        ),
        table_urdf=_ASSETS / "table.urdf",
        table_position=(0.0, 0.0, 0.0),
        table_euler=(0.0, 0.0, 0.0),
        plane_urdf=_ASSETS / "floor.urdf",
        global_scaling=1.0,
        blocks=tuple(BlockConfig(name, _ASSETS / f"{name}.urdf") for name in BLOCKS),
        slider_joint="base__slide",
        drawer_joint="base__drawer",
        button_joint="base__button",
        switch_joint="base__switch",
        lightbulb=LightConfig("light_link", (1.0, 1.0, 0.0, 1.0)),
        led=LightConfig("led_link", (0.0, 1.0, 0.0, 1.0)),
        surfaces={
            "table": ((0.0, -0.15, 0.46), (0.35, -0.03, 0.46)),
            "slider_left": ((-0.32, 0.05, 0.46), (-0.16, 0.12, 0.46)),
            "slider_right": ((-0.05, 0.05, 0.46), (0.13, 0.12, 0.46)),
        },
    )


@contextmanager
def _panda_urdf() -> Iterator[Path]:
    """The arm's URDF, in a temporary file; it is gone after the block."""
    import pybullet_data

    panda = Path(pybullet_data.getDataPath()) / "franka_panda"
    parts = (_ASSETS / "hand_parts.xml").read_text()
    text = (panda / "panda.urdf").read_text().replace("package://", f"{panda}/")
    body, closing, _ = text.rpartition("</robot>")
    with tempfile.TemporaryDirectory(prefix="langsteer-") as folder:
        urdf = Path(folder) / "panda.urdf"
        urdf.write_text(f"{body}{parts}{closing}\n")
        yield urdf
