"""The commands that run the simulator, as scripts and entry points call them.

Each checks that the simulator is installed before it imports a module that needs it::

    langsteer-collect --help  # error: the simulator needs pybullet, ...
"""

from collections.abc import Callable
from importlib import import_module

from langsteer.envs.requirements import require_simulator
from langsteer.errors import exits_cleanly


def _command(module: str) -> Callable[[], None]:
    @exits_cleanly
    def command() -> None:
        require_simulator()
        import_module(module).main()

    return command


collect = _command("langsteer.collect_command")
replay = _command("langsteer.experts.replay")
evaluate = _command("langsteer.evaluation.long_horizon")
evaluate_steering = _command("langsteer.evaluation.comparison")
experiment = _command("langsteer.evaluation.experiment")
quickstart = _command("langsteer.quickstart")
