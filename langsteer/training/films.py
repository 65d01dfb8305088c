"""Films of the policy while it is trained, beside the checkpoints and in W&B.

`training` knows no simulator. Whoever starts the training brings a `Filmer`.

Example::

    films = Films(filmer, folder, records, log)
    films.take(ema.model, epoch=50, step=12_000, stop=stop)  # <folder>/videos/epoch_0050.mp4
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from langsteer.policies.dp3 import DP3
from langsteer.training.loggers import RunLogger
from langsteer.training.signals import StopRequest


class Filmer(Protocol):
    """Lets a policy act somewhere and films it."""

    def __call__(self, policy: DP3, path: Path, stopped: Callable[[], bool]) -> str | None:
        """Write an MP4 of one attempt.

        Args:
            policy: to act, in evaluation mode.
            path: of the film.
            stopped: asked after every step; True ends the attempt without a film.

        Returns:
            What was tried and the outcome, in words; None if it was stopped.
        """


class Films:
    """Takes films until one fails; the training goes on without them.

    Attributes:
        go_on: whether no film has failed.
    """

    def __init__(
        self, filmer: Filmer, folder: Path, records: RunLogger, log: logging.Logger
    ) -> None:
        self._filmer, self._folder = filmer, folder / "videos"
        self._records, self._log = records, log
        self.go_on = True

    def take(self, policy: DP3, epoch: int, step: int, stop: StopRequest) -> None:
        """Film the policy after ``epoch`` epochs; its mode and the run's noise stay as they are."""
        path = self._folder / f"epoch_{epoch:04d}.mp4"
        was_training = policy.training
        policy.eval()
        try:
            self._folder.mkdir(exist_ok=True)
            outcome = self._filmer(policy, path, lambda: stop.requested)
            if outcome is not None:
                self._records.video(path, f"epoch {epoch}, {outcome}", step)
                self._log.info("%s: %s", path, outcome)
        except Exception as error:  # of a simulator, a codec or a disk
            self.go_on = False
            self._log.warning("no more films: %s", error)
        finally:
            policy.train(was_training)
