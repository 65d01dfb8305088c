"""What the simulator needs, said plainly where it is missing.

Example::

    require_simulator()  # UserError: the simulator needs pybullet, which ...
"""

import importlib.util
import sys

from langsteer.errors import UserError

_PACKAGES = ("pybullet", "gymnasium", "imageio_ffmpeg")
_WITH_WHEELS = ((3, 10), (3, 11))
"""Versions of Python that PyBullet 3.2.7 has wheels for."""


def require_simulator() -> None:
    """Find the packages of the extra ``[sim]``, without importing them.

    Raises:
        UserError: some are missing; it names them and a Python that they install on.
    """
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if not missing:
        return
    here = sys.version_info[:2]
    wanted = " or ".join(f"{major}.{minor}" for major, minor in _WITH_WHEELS)
    todo = "pip install 'langsteer[sim]'"
    if here not in _WITH_WHEELS:
        todo = f"use Python {wanted}, which PyBullet has wheels for, and {todo} there"
    raise UserError(
        f"the simulator needs {', '.join(missing)}, not installed for {sys.executable} "
        f"(Python {here[0]}.{here[1]}); {todo}"
    )
