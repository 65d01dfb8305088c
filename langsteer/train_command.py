"""The command ``langsteer-train``: the trainer, with the simulator's films where they are wanted.

Example::

    langsteer-train training=dp3_debug training.video.task=open_drawer
"""

import os
from typing import Any

from langsteer.configuration import run_command
from langsteer.errors import exits_cleanly
from langsteer.training.config import RunConfig, VideoConfig
from langsteer.training.dp3_trainer import train
from langsteer.training.films import Filmer
from langsteer.training.signals import EXIT_PREEMPTED
from langsteer.training.world import detect


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/train_dp3.py`` and ``langsteer-train``."""
    run_command("train", _train_and_exit)


def _train_and_exit(config: dict[str, Any]) -> None:
    settings = RunConfig.from_dict(config)
    is_main = detect(os.environ).is_main
    filmer = _open_filmer(settings.training.video) if is_main else None
    # Rank 0 answers for all. After another rank's status other than 0, srun kills the rest, rank 0
    # perhaps in the middle of its checkpoint.
    if not train(settings, filmer) and is_main:
        raise SystemExit(EXIT_PREEMPTED)


def _open_filmer(video: VideoConfig) -> Filmer | None:
    """None where no film is wanted; training then needs no simulator."""
    if video.task is None:
        return None
    from langsteer.evaluation.run import EnvSettings
    from langsteer.evaluation.validation_video import ValidationVideo

    return ValidationVideo(video.task, EnvSettings(scene=video.scene))
