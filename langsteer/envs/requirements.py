"""The packages the simulator needs, and a plain message if one is missing.

Example::

    require_simulator()  # UserError: the simulator needs pybullet, which ...
"""

import importlib.util
import platform
import sys

from langsteer.errors import UserError

DISTRIBUTIONS = ("pybullet", "pybullet-arm64")
"""Distributions of the module ``pybullet``: upstream, and a copy for later Pythons and macOS."""

_PACKAGES = ("pybullet", "gymnasium", "imageio_ffmpeg")
_EXTRA = "pip install 'langsteer[sim]'"
_FROM_SOURCE = (
    "pip install numpy setuptools wheel && pip install --no-build-isolation pybullet==3.2.7"
)


def require_simulator() -> None:
    """Find the packages of the extra ``[sim]``, without importing them.

    Raises:
        UserError: some are missing; the message names them and how to install them.
    """
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if not missing:
        return
    todo = _EXTRA
    if "pybullet" in missing and not _has_wheel():
        todo = (
            "neither of its distributions has a wheel for this Python and machine; use Python 3.11 "
            f"to 3.13 on Linux (x86-64) or macOS (arm64) and {_EXTRA} there, or build it from "
            f"source, with a C++ compiler, in about 15 minutes: {_FROM_SOURCE} && {_EXTRA}"
        )
    raise UserError(
        f"the simulator needs {', '.join(missing)}, not installed for {sys.executable} "
        f"(Python {sys.version_info[0]}.{sys.version_info[1]}, {platform.system()} "
        f"{platform.machine()}); {todo}"
    )


def _has_wheel() -> bool:
    """Whether the extra ``[sim]`` installs PyBullet here; pyproject.toml says the same."""
    machine = (sys.platform, platform.machine())
    supported = machine in (("linux", "x86_64"), ("darwin", "arm64"))
    return supported and (3, 11) <= sys.version_info[:2] <= (3, 13)
