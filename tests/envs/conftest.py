"""Environments for the tests of the simulator."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from langsteer.envs.calvin_env import CalvinEnv


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
