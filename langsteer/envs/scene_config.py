"""Load a scene by name: CALVIN's ``conf/scene/*.yaml``, or the one built into LangSteer.

Example::

    config = load_scene("D", Path("/path/to/calvin_env"))
    config.blocks[0].name   # 'block_red'; this order is the order of scene_obs
"""

import math
import os
import re
from collections.abc import Mapping
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
from langsteer.reading import read_text, read_yaml

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
    entries = _read_entries(path, root)
    try:
        return _from_entries(name, entries, root / "data")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: not a scene of CALVIN ({type(error).__name__}: {error}); {_HOW_TO_GET}"
        ) from error


def _read_entries(path: Path, root: Path) -> dict[str, Any]:
    """The file's entries, with ``${...}`` filled in as in CALVIN's own configuration."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_HOW_TO_GET}")
    try:
        entries = read_yaml(path)
        if not isinstance(entries, dict):
            raise ValueError(f"a mapping was expected, found {type(entries).__name__}")
        values = {**entries, "data_path": str(root / "data"), "robot": {"euler_obs": True}}
        return {str(key): _filled(value, values) for key, value in entries.items()}
    except ValueError as error:
        raise UserError(f"{path}: not readable as a scene: {error}") from error


def _filled(value: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - plain values
    """A value with each ``${dotted.name}`` in it replaced by the plain value of that name."""
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    name = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return value if name is None else _named(name[1], values)


def _named(name: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a plain value
    found: Any = values
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise ValueError(f"${{{name:.100}}}: no such entry")
        found = found[key]
    # Names for names, or for lists, would let a small file grow without end.
    if isinstance(found, dict | list) or (isinstance(found, str) and "${" in found):
        raise ValueError(f"${{{name:.100}}} must stand for a single plain value")
    return found


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
        global_scaling=_number(entries["global_scaling"]),
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
    return tuple(_number(value) for value in values)


def _number(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number}: expected a finite number")
    return number


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
