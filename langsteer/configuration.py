"""Compose a command's configuration from ``conf/``, with errors that help.

Hydra's groups and overrides, without its folders and its change of the working directory. An
unknown key is an error that names the nearest one; so is a value of the wrong type.

Example::

    config = compose("train", ["training=dp3_debug", "training.batch_size=4"])
    config["training"]["batch_size"]      # 4
"""

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from langsteer.errors import UserError
from langsteer.settings import nearest

# Hydra's parser and OmegaConf's interpolation let some of Python's own errors through.
_UNREADABLE = (HydraException, OmegaConfBaseException, RecursionError, ValueError, TypeError)
_PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """``conf/`` of the checkout, or its copy inside an installed package."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration ``conf/<name>.yaml`` with overrides, resolved to plain values.

    Args:
        name: of the file, e.g. ``"train"``.
        overrides: as on the command line: ``group=option`` or ``dotted.key=value``.

    Raises:
        UserError: unknown key or option, or an unreadable value.
    """
    folder = config_folder()
    groups = [item for item in overrides if _is_group(folder, item)]
    values = [item for item in overrides if item not in groups]
    for item in groups:
        _check_option(folder, item)
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        composed = hydra_compose(name, groups)
        known = _leaves(OmegaConf.to_container(composed, resolve=False))
        for item in values:
            _check_key(item, known)
        try:
            if values:
                composed = hydra_compose(name, list(overrides))
            # Our files hold mappings; OmegaConf's type allows lists and scalars too.
            return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
        except _UNREADABLE as error:
            # The lines after the first are about OmegaConf's own objects.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            told = " ".join(f"{item:.200}" for item in overrides)
            raise UserError(f"configuration {told}: {reason:.500}") from error


def option_note(group: str, option: str) -> str:
    """The first sentence of the comment above ``conf/<group>/<option>.yaml``; empty without one."""
    path = config_folder() / group / f"{option}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    above = itertools.takewhile(lambda line: line.startswith("#"), lines)
    comment = " ".join(line.removeprefix("# ") for line in above)
    return re.split(r"(?<=\.)\s", comment, maxsplit=1)[0].rstrip(".")


def run_command(name: str, command: Callable[[dict[str, Any]], None]) -> None:
    """Run ``command`` on the configuration of the process's arguments."""
    command(compose(name, sys.argv[1:]))


def _is_group(folder: Path, override: str) -> bool:
    key = override.split("=", 1)[0]
    return any(key == group.name for group in folder.iterdir() if group.is_dir())


def _check_option(folder: Path, override: str) -> None:
    group, _, option = override.partition("=")
    options = sorted(path.stem for path in (folder / group).glob("*.yaml"))
    if option not in options:
        raise UserError(
            f"{override}: no such {group}, expected one of {', '.join(options)}"
            f"{nearest(option, options)}"
        )


def _check_key(override: str, known: dict[str, Any]) -> None:
    key, equals, _ = override.partition("=")
    if not equals or key.startswith(("+", "~", "-")):
        raise UserError(f"{override!r}: expected key=value; --help lists the keys")
    if key not in known:
        raise UserError(f"{key}: unknown key{nearest(key, list(known))} (--help lists all keys)")


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 - nested plain values
    """Dotted key to value of every node below the root, branches included."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
    return found
