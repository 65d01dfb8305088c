"""Loops for numba to compile at their first call and keep on disk for the next process.

Example::

    @compiled
    def total(values: NDArray[np.float32]) -> float:
        ...
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile with numba, and keep the result beside the package or in the user's cache."""
    try:
        return cast(_Function, numba.njit(function, cache=True))
    except RuntimeError:  # numba found no folder to write to
        return cast(_Function, numba.njit(function))
