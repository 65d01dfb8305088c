"""The commands, as scripts and entry points call them.

Help comes within a second: it imports nothing heavy and needs no simulator. A command of the
simulator checks for it before importing a module that needs it::

    langsteer-collect --save_path data/demos  # error: the simulator needs pybullet, ...
"""

from collections.abc import Callable
from importlib import import_module

from langsteer.command_line import wants_help
from langsteer.envs.requirements import require_simulator
from langsteer.errors import exits_cleanly
from langsteer.training.signals import hold_signals


def _of_keys(module: str, config: str, before: Callable[[], None]) -> Callable[[], None]:
    """A command with ``key=value`` arguments; ``conf/<config>.yaml`` has its keys."""

    @exits_cleanly
    def command() -> None:
        if wants_help():
            import_module("langsteer.help_page").show_help(config)
            return
        before()
        import_module(module).main()

    return command


def _of_options(module: str, before: Callable[[], None]) -> Callable[[], None]:
    """A command with ``--options``; its parser prints the help."""

    @exits_cleanly
    def command() -> None:
        if not wants_help():
            before()
        import_module(module).main()

    return command


# Training notes signals before it imports PyTorch: the import takes seconds.
train = _of_keys("langsteer.train_command", "train", hold_signals)
serve = _of_keys("langsteer.serving.serve_command", "serve", lambda: None)
evaluate = _of_keys("langsteer.evaluation.long_horizon", "evaluate", require_simulator)
evaluate_steering = _of_keys(
    "langsteer.evaluation.comparison", "evaluate_steering", require_simulator
)
experiment = _of_keys("langsteer.evaluation.experiment", "experiment", require_simulator)
collect = _of_options("langsteer.collect_command", require_simulator)
replay = _of_options("langsteer.replay_command", require_simulator)
quickstart = _of_options("langsteer.quickstart_command", require_simulator)
demo = _of_options("langsteer.demo_command", require_simulator)
