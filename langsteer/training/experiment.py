"""An experiment's folder, and the resume of an experiment.

Example::

    experiment = open_experiment(config, world)
    experiment.folder          # outputs/checkpoints/dp3_calvin_20260213
    experiment.resumed         # the checkpoint's payload, or None for a new run
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from langsteer.claims import at_work
from langsteer.errors import UserError
from langsteer.files import remove_temporary
from langsteer.nesting import differences, flatten
from langsteer.policies.dp3 import DP3Config
from langsteer.training.checkpoint_reading import (
    find_experiment,
    newest_checkpoint,
    read_training_checkpoint,
    verified_checkpoint,
)
from langsteer.training.config import TrainingConfig
from langsteer.training.consensus import from_main
from langsteer.training.world import World

# A resumed run must share these with its checkpoint to be the run that was never stopped. The rest
# (epochs, validation, logging, workers, device) may change.
_MUST_MATCH = (
    "policy",
    "training.seed",
    "training.learning_rate",
    "training.betas",
    "training.weight_decay",
    "training.warmup_steps",
    "training.use_ema",
    "training.dataset.max_train_episodes",
    "training.dataset.val_ratio",
    "training.dataset.tail",
    "training.dataset.sentences",
)


@dataclass(frozen=True)
class Experiment:
    """The folder of a run, and its starting point.

    ``checkpoint`` and ``resumed`` are the path and the content of the checkpoint, or None.
    """

    folder: Path
    checkpoint: Path | None = None
    resumed: dict[str, Any] | None = None

    @property
    def goes_on_in_its_folder(self) -> bool:
        """Whether the records up to the checkpoint were made in the same folder."""
        return self.checkpoint is not None and self.checkpoint.parent == self.folder


def open_experiment(config: TrainingConfig, world: World) -> Experiment:
    """Choose the folder; for a resume, find and read the checkpoint.

    Rank 0 chooses and the others follow.

    Raises:
        UserError: there is nothing to resume, or a new run would mix with an old one's files.
    """
    # One rank looks at the disk: two might find different newest files.
    chosen = _choose(config) if world.is_main else (Path(), None)
    folder = Path(from_main(str(chosen[0])))
    checkpoint = from_main(str(chosen[1] or ""))
    if not checkpoint:
        return Experiment(folder)
    # Mapped, so that no rank keeps a copy of it in memory.
    return Experiment(folder, Path(checkpoint), read_training_checkpoint(Path(checkpoint)))


@contextmanager
def held(experiment: Experiment, world: World) -> Iterator[None]:
    """Hold an experiment's folder for the block, so that no two trainings write to it.

    Rank 0 holds it for all, by a lock the system releases when the process ends. Half-written files
    of killed runs are removed.

    Raises:
        UserError: another training is at work there, or has just been.
    """
    if not world.is_main:
        yield
        return
    folder = experiment.folder
    with ExitStack() as stack:
        try:
            alone = stack.enter_context(at_work(folder, lambda: remove_temporary(folder)))
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error}); set training.checkpoint_dir"
            ) from error
        if not alone:
            raise UserError(
                f"{folder}: another training is at work here; wait for its end, or choose another "
                "training.experiment_name"
            )
        if experiment.checkpoint is None and any(folder.glob("*.ckpt")):
            raise UserError(
                f"{folder}: another training was here a moment ago; go on with it by "
                "training.resume=true"
            )
        try:
            yield
        except KeyboardInterrupt:
            # Whoever leaves without saving keeps no part of a checkpoint, which may be gigabytes.
            remove_temporary(folder)
            raise


def _choose(config: TrainingConfig) -> tuple[Path, Path | None]:
    """The folder, and the checkpoint to resume from."""
    root = Path(config.checkpoint_dir)
    if config.resume is False:
        return _new_folder(root, config), None
    # A named checkpoint counts for the first start alone; a requeued job goes on with its own.
    if config.resume_checkpoint_path is not None and not _began_already(root, config):
        path = Path(config.resume_checkpoint_path)
        verified_checkpoint(path)
        named = config.experiment_name
        return (root / named if named else path.parent), path
    folder = find_experiment(root, config.experiment_name, config.name)
    if folder is None:
        if config.resume == "auto":
            return _new_folder(root, config), None
        wanted = config.experiment_name or f"{config.name}_<date>"
        raise UserError(
            f"{root / wanted}: no checkpoint to resume from; check training.experiment_name and "
            "training.checkpoint_dir, or start anew without training.resume=true"
        )
    path, _ = newest_checkpoint(folder, lambda text: print(text, file=sys.stderr))
    return folder, path


def _began_already(root: Path, config: TrainingConfig) -> bool:
    """Whether a run begun from another run's checkpoint has saved one of its own.

    A requeued job runs the same command again; it goes on with its own.
    """
    named = config.experiment_name
    return config.resume == "auto" and named is not None and any((root / named).glob("*.ckpt"))


def _new_folder(root: Path, config: TrainingConfig) -> Path:
    """A folder without checkpoints: the one named, or ``<name>_<date>`` with a number at need.

    A dated folder is made here and now, so two runs that begin together do not share it.
    """
    if config.experiment_name is not None:
        folder = root / config.experiment_name
        if any(folder.glob("*.ckpt")):
            raise UserError(
                f"{folder}: holds checkpoints of an earlier run; go on with it by "
                "training.resume=true, or choose another training.experiment_name"
            )
        return folder
    dated = root / f"{config.name}_{datetime.now():%Y%m%d}"
    for number in itertools.count(1):
        folder = dated if number == 1 else dated.with_name(f"{dated.name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be made ({error}); set training.checkpoint_dir"
            ) from error
        return folder
    raise AssertionError


def check_fits(
    checkpoint: Path | None, saved: Mapping[str, Any], current: Mapping[str, Any]
) -> None:
    """Raise `UserError` listing the differences between the run and its checkpoint.

    Both are payloads: ``config``, ``pipeline`` and ``data`` are compared.
    """
    line = "  {name}: {one} in the checkpoint, {other} now"
    differing = differences(_comparable(saved), _comparable(current), line)
    if differing:
        raise UserError(
            f"{checkpoint}: cannot be resumed with this configuration, which differs in\n"
            f"{differing}\n"
            "set these as they were, or start a new run with another training.experiment_name"
        )


def _comparable(payload: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten({"pipeline": payload["pipeline"], "data": payload["data"]})
    # Read back: keys unknown to the checkpoint's version get their defaults.
    policy = DP3Config.from_dict(payload["config"]["policy"]).to_dict()
    training = TrainingConfig.from_dict(payload["config"]["training"]).to_dict()
    settings = flatten({"policy": policy, "training": training})
    for key, value in settings.items():
        if any(key == name or key.startswith(f"{name}.") for name in _MUST_MATCH):
            flat[key] = value
    return flat
