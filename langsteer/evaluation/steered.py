"""Steering inside any rollout: from the ``steering`` group of a configuration to an agent's hands.

Example::

    settings["steering"], tasks = checked_steering(steering, "pull it out", tasks, scene="D")
    steer(agent, settings["steering"], tasks[0], env, seed=0)      # before the rollout
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.policies.agent import Agent
from langsteer.steering.blocks import KnownScene
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import DemonstrationLibrary, open_library
from langsteer.steering.feasibility import require_feasible
from langsteer.steering.language import make_reader
from langsteer.steering.steerer import Steerer, require_steerable


def checked_steering(
    steering: Mapping[str, Any], instruction: str | None, tasks: Sequence[str], scene: str
) -> tuple[dict[str, Any], list[str]]:
    """The steering's settings, and the tasks that are asked for.

    With steering, an instruction in free words says what is to be done; the task named beside it
    no longer counts.

    Raises:
        UserError: a wrong setting, an instruction that cannot be placed, or a task for which the
            steering has no demonstration, or knows no places in the scene.
    """
    config = SteeringConfig.from_dict(steering)
    if not config.steers:
        return config.to_dict(), list(tasks)
    if instruction is not None:
        tasks = [make_reader(config.encoder, config.plugin)(instruction).task]
    library = _library(config.demonstrations) if config.demonstrations else None
    for task in tasks:
        require_steerable(config, task, library, scene)
    return config.to_dict(), list(tasks)


def steer(agent: Agent, steering: Mapping[str, Any], task: str, env: CalvinEnv, seed: int) -> None:
    """Let the agent's next rollout head for a task from where ``env`` stands, where it steers.

    Raises:
        UserError: the task cannot be done from here.
    """
    config = SteeringConfig.from_dict(steering)
    if not config.steers:
        return
    require_feasible(task, env.info())
    library = _library(config.demonstrations) if config.demonstrations else None
    steerer = Steerer(config, library)
    known = KnownScene(env.scene_obs, env.block_names)
    steerer.begin(task, env.commanded_pose, seed, known)
    agent.predict = steerer.predict


@functools.lru_cache(maxsize=1)
def _library(path: str) -> DemonstrationLibrary:
    """Opened once in a process, since reading a folder takes a while."""
    return open_library(Path(path))
