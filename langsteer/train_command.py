"""The command ``langsteer-train``: the trainer, with the simulator's films where they are wanted.

Example::

    langsteer-train training=dp3_debug training.video.task=open_drawer
"""

import os
import sys
from typing import Any, NoReturn

from langsteer.configuration import run_command
from langsteer.errors import EXIT_INTERRUPTED, exits_cleanly
from langsteer.training.config import RunConfig, VideoConfig
from langsteer.training.dp3_trainer import train
from langsteer.training.films import Filmer
from langsteer.training.signals import EXIT_PREEMPTED
from langsteer.training.world import detect


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/train_dp3.py`` and ``langsteer-train``."""
    try:
        run_command("train", _train_and_exit)
    except KeyboardInterrupt:
        _leave_at_once()


def _train_and_exit(config: dict[str, Any]) -> None:
    settings = RunConfig.from_dict(config)
    is_main = detect(os.environ).is_main
    filmer = _open_filmer(settings.training.video) if is_main else None
    # Rank 0 answers for all. After another rank's status other than 0, srun kills the rest, rank 0
    # perhaps in the middle of its checkpoint.
    if not train(settings, filmer) and is_main:
        raise SystemExit(EXIT_PREEMPTED)


def _leave_at_once() -> NoReturn:
    """End this process, and with it the thread that may be writing a checkpoint.

    An ordinary exit waits for that thread, or aborts where PyTorch runs in it.
    """
    print("interrupted", file=sys.stderr)
    sys.stdout.flush()
    os._exit(EXIT_INTERRUPTED)


def _open_filmer(video: VideoConfig) -> Filmer | None:
    """None where no film is wanted; training then needs no simulator."""
    if video.task is None:
        return None
    from langsteer.evaluation.run import EnvSettings
    from langsteer.evaluation.validation_video import ValidationVideo

    return ValidationVideo(video.task, EnvSettings(scene=video.scene))
