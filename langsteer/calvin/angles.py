"""Angles that come round again after a whole turn.

Example::

    wrapped(np.array([np.pi + 0.1]))    # [-3.04...]: the short way round
"""

import numpy as np
from numpy.typing import NDArray


def wrapped(radians: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same angles (...) in [-pi, pi)."""
    turned: NDArray[np.float64] = (radians + np.pi) % (2 * np.pi) - np.pi
    return turned
