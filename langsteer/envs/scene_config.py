"""Load a scene by name: CALVIN's ``conf/scene/*.yaml``, or the one built into LangSteer.

Example::

    config = load_scene("D", Path("/path/to/calvin_env"))
    config.blocks[0].name   # 'block_red'; this order is the order of scene_obs
"""

import io
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from langsteer.calvin.task import BLOCKS
from langsteer.envs.builtin import builtin_scene
from langsteer.envs.scene import (
    BUILTIN,
    MOST_URDF,
    SCENES,
    BlockConfig,
    LightConfig,
    SceneConfig,
    Vector,
)
from langsteer.errors import UserError
from langsteer.reading import read_text

ASSETS_VARIABLE = "CALVIN_ENV_ROOT"

_CALVIN_ROBOT = "franka_panda/panda_longer_finger.urdf"
_CALVIN_PLANE = "plane/plane.urdf"
_CHECKOUT = Path(__file__).resolve().parents[2]
_FETCHED = Path("third_party/calvin_env")
"""The checkout made by scripts/setup_calvin.sh."""
_HOW_TO_GET = (
    f"run scripts/setup_calvin.sh, or set {ASSETS_VARIABLE} or env.assets_path to a checkout, "
    f"or use env.scene={BUILTIN}, which needs no download"
)
_LFS_POINTER = b"version https://git-lfs"


def load_scene(name: str, assets_path: str | Path | None = None) -> SceneConfig:
    """The scene ``name``, with a check of its files.

    Args:
        name: ``"builtin"``, or ``"A"`` ... ``"D"`` (``"calvin_scene_D"`` means the same).
        assets_path: CALVIN's ``calvin_env`` checkout; by default as `calvin_root` says. The
            built-in scene ignores it.

    Raises:
        UserError: an unknown scene, no checkout, or files missing in it.
    """
    short = name.removeprefix("calvin_scene_")
    if short not in SCENES:
        raise UserError(f"no scene {name!r}: expected one of {', '.join(SCENES)}")
    if short == BUILTIN:
        return builtin_scene()
    root = calvin_root(assets_path)
    config = _read_calvin_scene(root, short)
    _check_urdfs(config, root)
    return config


def calvin_root(assets_path: str | Path | None) -> Path:
    """The folder of CALVIN's simulator.

    It is ``assets_path``, or the path in ``CALVIN_ENV_ROOT``, or ``third_party/calvin_env`` of this
    folder or of LangSteer's own.

    Raises:
        UserError: there is none, or the folder has no ``data`` and ``conf/scene``.
    """
    given = assets_path or os.environ.get(ASSETS_VARIABLE) or _fetched_root()
    if not given:
        raise UserError(
            f"CALVIN's scenes need CALVIN's assets, and there are none: env.assets_path and "
            f"{ASSETS_VARIABLE} are not set, and there is no {_FETCHED}; {_HOW_TO_GET}"
        )
    root = Path(given).expanduser().resolve()
    for part in ("data", "conf/scene"):
        if not (root / part).is_dir():
            raise UserError(
                f"{root}: no folder {part!r} in it, expected a checkout of mees/calvin_env; "
                f"{_HOW_TO_GET}"
            )
    return root


def _fetched_root() -> Path | None:
    places = (Path.cwd() / _FETCHED, _CHECKOUT / _FETCHED)
    return next((place for place in places if place.is_dir()), None)


def _read_calvin_scene(root: Path, name: str) -> SceneConfig:
    path = root / "conf" / "scene" / f"calvin_scene_{name}.yaml"
    entries = _resolved_yaml(path, root)
    try:
        return _from_entries(name, entries, root / "data")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not a scene of CALVIN ({type(error).__name__}: {error}); {_HOW_TO_GET}"
        ) from error


def _resolved_yaml(path: Path, root: Path) -> dict[str, Any]:
    """The file's entries, with ``${...}`` filled in as in CALVIN's own configuration."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise UserError(f"{path}: no such file; {_HOW_TO_GET}")
    surroundings = {"data_path": str(root / "data"), "robot": {"euler_obs": True}}
    try:
        # OmegaConf reads YAML with a safe loader: tags to build Python objects are errors.
        found = OmegaConf.load(io.StringIO(read_text(path, MOST_URDF)))
        merged = OmegaConf.merge(found, surroundings)
        entries = OmegaConf.to_container(merged, resolve=True)
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{path}: not readable as a scene: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path}: a mapping was expected, found {type(entries).__name__}")
    return {str(key): value for key, value in entries.items()}


def _from_entries(name: str, entries: dict[str, Any], data: Path) -> SceneConfig:
    table = entries["objects"]["fixed_objects"]["table"]
    blocks = entries["objects"]["movable_objects"]
    slider, drawer = table["joints"]
    lights = {
        light: LightConfig(found["link"], _vector(found["color"]))
        for light, found in table["lights"].items()
    }
    if set(blocks) != set(BLOCKS) or len(lights) != 2:
        raise ValueError(f"blocks {list(blocks)}, lights {list(lights)}")
    return SceneConfig(
        name=name,
        robot_urdf=lambda: nullcontext(data / _CALVIN_ROBOT),
        robot_base_position=_vector(entries["robot_base_position"]),
        robot_base_euler=_vector(entries["robot_base_orientation"]),
        robot_initial_joints=_vector(entries["robot_initial_joint_positions"]),
        table_urdf=data / table["file"],
        table_position=_vector(table["initial_pos"]),
        table_euler=_vector(table["initial_orn"]),
        plane_urdf=data / _CALVIN_PLANE,
        global_scaling=float(entries["global_scaling"]),
        blocks=tuple(BlockConfig(block, data / found["file"]) for block, found in blocks.items()),
        slider_joint=slider,
        drawer_joint=drawer,
        button_joint=_only_with_effect(table["buttons"], "led"),
        switch_joint=_only_with_effect(table["switches"], "lightbulb"),
        lightbulb=lights["lightbulb"],
        led=lights["led"],
        surfaces={
            surface: (_vector(low), _vector(high))
            for surface, (low, high) in entries["surfaces"].items()
        },
    )


def _only_with_effect(parts: dict[str, Any], effect: str) -> str:
    (name,) = parts
    if parts[name]["effect"] != effect:
        raise ValueError(f"{name} acts on {parts[name]['effect']!r}, expected {effect!r}")
    return str(name)


def _vector(values: list[float]) -> Vector:
    return tuple(float(value) for value in values)


def _check_urdfs(config: SceneConfig, root: Path) -> None:
    """Raise if a URDF or one of its meshes is missing or is a pointer of git-lfs."""
    urdfs = [root / "data" / _CALVIN_ROBOT, config.table_urdf, config.plane_urdf]
    for urdf in [*urdfs, *(block.urdf for block in config.blocks)]:
        _check_file(urdf, root)
        for reference in re.findall(r'<mesh[^>]*filename="([^"]+)"', read_text(urdf, MOST_URDF)):
            _check_file(urdf.parent / reference.removeprefix("package://"), root)


def _check_file(path: Path, root: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file; {root} is incomplete: {_HOW_TO_GET}")
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(
                f"{path}: a pointer of git-lfs and not the file itself: run 'git lfs pull' in "
                f"{root}"
            )
