"""Film a policy while it is trained: the same start and noise each time, so films compare.

Example::

    filmer = ValidationVideo("open_drawer", EnvSettings())
    filmer(policy, Path("epoch_0050.mp4"), lambda: False)  # "open_drawer: success after 2.1 s"
"""

from collections.abc import Callable
from pathlib import Path

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import checked_task
from langsteer.envs.requirements import require_simulator
from langsteer.envs.scene_config import load_scene
from langsteer.evaluation.experiment import prepare_start
from langsteer.evaluation.player import Player, open_env
from langsteer.evaluation.rollout import TaskRun
from langsteer.evaluation.run import EnvSettings
from langsteer.policies.agent import Agent
from langsteer.policies.dp3 import DP3

SEED, EPISODE = 0, 0
"""An experiment's default seed, and its first episode: `ValidationVideo` begins there."""


class _Stopped(Exception):
    """The training was asked to leave."""


class ValidationVideo:
    """Films one attempt at a task, from the start of an experiment's first episode.

    Args:
        task: one of CALVIN's.
        env: the simulator.

    Raises:
        UserError: no such task or scene, or no simulator.
    """

    def __init__(self, task: str, env: EnvSettings) -> None:
        require_simulator()
        self._task, self._env = checked_task(task), env
        load_scene(env.scene, env.assets_path)  # its absence is told now, not after fifty epochs

    def __call__(self, policy: DP3, path: Path, stopped: Callable[[], bool]) -> str | None:
        """Write an MP4; see `langsteer.training.films.Filmer`."""

        def judge(run: TaskRun) -> bool | None:
            if stopped():
                raise _Stopped
            return self._task in run.tasks_seen or None

        agent = Agent(policy)
        player = Player(open_env(self._env, agent), agent)
        try:
            seed = prepare_start(player.env, self._task, SEED, EPISODE)
            words = phrasings(self._task)[0]
            run = player.play(self._task, words, seed, video=path, judge=judge)
        except _Stopped:
            return None
        finally:
            player.close()
        return f"{player.caption(self._task, words)}: {run.outcome}"
