"""Environments and traces for the tests of the simulator."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv


@pytest.fixture(scope="session")
def calvin_assets(shared: Path) -> Path:
    """A checkout of calvin_env: its data and conf folders."""
    return shared / "calvin_assets"


@pytest.fixture(scope="session")
def traces(shared: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the real simulator did: name of the trace to its arrays."""
    folder = shared / "reference" / "calvin_traces"
    return {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}


@pytest.fixture
def make_env() -> Iterator["Callable[..., CalvinEnv]"]:
    """Makes environments and closes them after the test."""
    from langsteer.envs.calvin_env import CalvinEnv

    made = []

    def make(*args: Any, **kwargs: Any) -> CalvinEnv:
        made.append(CalvinEnv(*args, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()
