"""Check a run's inputs and describe it, before it begins.

Example::

    data, schedule = open_inputs(settings, policy_config, rank=0, world_size=4)
    print(describe_data(data))
"""

import importlib.util
import os
from pathlib import Path

from langsteer.data.store import Store, open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config
from langsteer.training.calvin_dataset import CalvinData
from langsteer.training.config import TrainingConfig
from langsteer.training.sampler import Schedule


def open_inputs(
    settings: TrainingConfig, policy: DP3Config, rank: int, world_size: int
) -> tuple[CalvinData, Schedule]:
    """The windows of the configured store, and the order in which a rank takes them.

    Raises:
        UserError: there is no such store, or it has fewer windows than the ranks take at once.
    """
    data = _open_data(settings, policy)
    accumulated = settings.gradient_accumulation_steps
    schedule = Schedule(
        len(data.train), settings.batch_size, accumulated, settings.seed, rank, world_size
    )
    _check_batch_size(data.store.path, schedule)
    return data, schedule


def _open_data(settings: TrainingConfig, policy: DP3Config) -> CalvinData:
    """The store of the configuration, split into windows."""
    path = settings.dataset.zarr_path
    if path is None:
        raise UserError(
            "no dataset: set CALVIN_ZARR_PATH (or training.dataset.zarr_path) to a store that "
            "scripts/convert_calvin_to_zarr.py made"
        )
    store: Store = open_store(path)
    return CalvinData(store, policy, settings.dataset, settings.seed)


def _check_batch_size(path: Path, schedule: Schedule) -> None:
    """Raise `UserError` if the ranks take more windows at once than there are."""
    at_once = schedule.batch_size * schedule.world_size
    if schedule.n_windows < at_once:
        raise UserError(
            f"{path}: {schedule.n_windows} training windows, fewer than training.batch_size="
            f"{schedule.batch_size} x {schedule.world_size} processes; set training.batch_size to "
            f"{schedule.n_windows // schedule.world_size} or less, or use more episodes"
        )


def describe_policy(policy: DP3) -> str:
    """Size and parametrisation."""
    parameters = sum(weight.numel() for weight in policy.parameters())
    return f"policy of {parameters:,} parameters, {policy.config.prediction} prediction"


def describe_data(data: CalvinData) -> str:
    """Episodes and windows of both splits, and the place of the points."""
    validation = "official" if data.official_validation else "held-out groups"
    points = "on the GPU" if data.buffer.points_on_device else "read from the store"
    language = "" if data.sentences is None else f"; {data.sentences.describe(data.train_episodes)}"
    return (
        f"data {data.store.path}: {len(data.train_episodes)} training episodes with "
        f"{len(data.train)} windows; validation: {len(data.val_episodes)} episodes with "
        f"{len(data.val)} windows ({validation}); points {points}{language}"
    )


def describe_schedule(schedule: Schedule) -> str:
    """The effective batch size with its factors, and the steps of an epoch."""
    return (
        f"effective batch size {schedule.effective_batch_size} = {schedule.batch_size} x "
        f"{schedule.world_size} processes x {schedule.accumulation} accumulated; "
        f"{schedule.steps_per_epoch} steps per epoch"
    )


def describe_plan(settings: TrainingConfig) -> str:
    """Epochs, learning rate, averaging, and where the numbers go."""
    average = "EMA" if settings.use_ema else "no EMA"
    return (
        f"{settings.num_epochs} epochs, learning rate {settings.learning_rate:g} after "
        f"{settings.warmup_steps} warm-up steps, {average}, {_wandb(settings)}"
    )


def _wandb(settings: TrainingConfig) -> str:
    if not settings.wandb.enabled or os.environ.get("WANDB_MODE") == "disabled":
        return "W&B off"
    if importlib.util.find_spec("wandb") is None:
        return "W&B off (wandb is not installed)"
    return f"W&B project {settings.wandb.project}, {settings.wandb.mode}"


def warn_of_warmup(settings: TrainingConfig, total_steps: int) -> str:
    """A warning where the learning rate never reaches its peak, or nothing."""
    if settings.warmup_steps < total_steps:
        return ""
    return (
        f"training.warmup_steps={settings.warmup_steps}: the run has {total_steps} steps, so the "
        f"learning rate never reaches {settings.learning_rate:g}; set a tenth of the steps, "
        f"training.warmup_steps={total_steps // 10}"
    )
