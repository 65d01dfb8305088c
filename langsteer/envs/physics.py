"""One PyBullet world of its own: every call through it names its client.

PyBullet's functions act on client 0 unless told otherwise, and ids of closed clients are used
again: a forgotten ``physicsClientId`` would move somebody else's robot. So all calls go through
this class, and several worlds live in one process, none touching another::

    physics = Physics()
    physics.setGravity(0, 0, -9.8)
    physics.close()
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from langsteer.envs.requirements import DISTRIBUTIONS, require_simulator

require_simulator()


@contextlib.contextmanager
def _without_standard_error() -> Iterator[None]:
    """Send what C code writes to standard error nowhere, for the block."""
    try:
        kept = os.dup(2)
    except OSError:  # this process has no standard error
        yield
        return
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - os.devnull is no path to handle
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


with _without_standard_error():  # "pybullet build time: ...", once in each process
    import pybullet as pybullet  # exported: the world's modules import it silently from here

TIME_STEP = 1.0 / 240.0
GRAVITY = -9.8

POSITION_CONTROL = pybullet.POSITION_CONTROL
VELOCITY_CONTROL = pybullet.VELOCITY_CONTROL


class Physics:
    """A PyBullet world without a window; its attributes are PyBullet's functions.

    Attributes:
        client_id: PyBullet's number of this world, −1 once it is closed.
    """

    def __init__(self) -> None:
        self.client_id = -1
        self.reopen()

    def reopen(self) -> None:
        """Close the world and open another one in its place."""
        self.close()
        self.client_id = pybullet.connect(pybullet.DIRECT)
        if self.client_id < 0:
            raise RuntimeError("PyBullet could not open another world in this process")
        self.empty()

    def empty(self) -> None:
        """Remove every body and set the world up anew, as on opening."""
        # CALVIN empties the world once more after setting its parameters; so do we.
        self.resetSimulation()
        self.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        self.setTimeStep(TIME_STEP)
        self.resetSimulation()
        self.setGravity(0, 0, GRAVITY)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """PyBullet's function ``name``, bound to this world and kept for the next call."""
        if name.startswith("_"):
            raise AttributeError(name)
        bound = partial(getattr(pybullet, name), physicsClientId=self.client_id)
        self.__dict__[name] = bound
        return bound

    def close(self) -> None:
        """Free the world; a second call does nothing. Later calls raise ``pybullet.error``."""
        if self.client_id < 0:
            return
        client_id = self.client_id
        self.__dict__.clear()  # bound functions would reach the next owner of this id
        self.client_id = -1
        if pybullet.isConnected(client_id):
            pybullet.disconnect(client_id)


def installed_distribution() -> dict[str, str]:
    """The installed distribution of PyBullet and its version: ``{"pybullet": "3.2.7"}``."""
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return {name: importlib.metadata.version(name)}
    return {"pybullet": "unknown: no installed distribution of it was found"}


def link_ids(physics: Physics, body: int) -> dict[str, int]:
    """Names of a body's links to PyBullet's link indices; the base link is −1."""
    names = {physics.getBodyInfo(body)[0].decode(): -1}
    for index in range(physics.getNumJoints(body)):
        names[physics.getJointInfo(body, index)[12].decode()] = index
    return names


def joint_ids(physics: Physics, body: int) -> dict[str, int]:
    """Names of a body's joints to PyBullet's joint indices."""
    return {
        physics.getJointInfo(body, index)[1].decode(): index
        for index in range(physics.getNumJoints(body))
    }
