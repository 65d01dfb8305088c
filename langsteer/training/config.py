"""The training configuration: names, types and bounds of ``conf/training/*.yaml``.

Example::

    config = TrainingConfig.from_dict(compose("train")["training"])
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.policies.precision import PRECISIONS
from langsteer.settings import Count, Natural, NonNegative, Portion, Positive, Settings, one_of

_LONGEST_NAME = 200
WhereFit = bool | Literal["auto"]
"""True, false, or ``auto``: if it can be."""


@dataclass(frozen=True)
class TrainingDatasetConfig(Settings, prefix="training.dataset."):
    """The store and its windows; see ``conf/training/dp3_calvin.yaml``."""

    zarr_path: str | None = None
    max_train_episodes: Count | None = None
    val_ratio: Portion = 0.02
    tail: Literal["repeat", "zero_motion"] = "repeat"
    sentences: Literal["own", "task"] = "own"


@dataclass(frozen=True)
class WandbConfig(Settings, prefix="training.wandb."):
    """Logging to Weights & Biases."""

    enabled: bool = True
    project: str = "langsteer_dp3"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


@dataclass(frozen=True)
class VideoConfig(Settings, prefix="training.video."):
    """A film at each checkpoint: the task to try, None for no film, and the simulator's scene."""

    task: str | None = None
    scene: str = "builtin"


@dataclass(frozen=True)
class TrainingConfig(Settings, prefix="training."):
    """Everything about a run but the policy; see ``conf/training/dp3_calvin.yaml``."""

    name: str
    experiment_name: str | None
    checkpoint_dir: str
    seed: Natural
    num_epochs: Count
    batch_size: Count
    gradient_accumulation_steps: Count
    num_workers: Natural
    learning_rate: Positive
    betas: tuple[Portion, Portion]
    weight_decay: NonNegative
    warmup_steps: Natural
    use_ema: bool
    val_every: Count
    val_action_samples: Natural
    checkpoint_every: Count
    top_k: Count
    log_every: Count
    resume: WhereFit
    resume_checkpoint_path: str | None
    device: Literal["auto", "cpu", "cuda"]
    precision: Annotated[str, one_of(*PRECISIONS)]
    compile: bool
    points_on_device: WhereFit
    # With defaults: checkpoints of earlier versions do not have them.
    deterministic: bool = False
    gradient_compression: Literal["none", "bf16"] = "none"
    timeout: Positive = 600.0
    init_from: str | None = None
    dataset: TrainingDatasetConfig = TrainingDatasetConfig()
    wandb: WandbConfig = WandbConfig()
    video: VideoConfig = VideoConfig()

    def __post_init__(self) -> None:
        # Checkpoints of earlier versions, and quoted values, hold words here.
        for name in ("resume", "points_on_device"):
            value = getattr(self, name)
            if value in ("true", "false"):
                object.__setattr__(self, name, value == "true")
        super().__post_init__()

    def check(self) -> None:
        """Raise `UserError` for a run that could not begin or not be found again."""
        if self.resume is False and self.resume_checkpoint_path is not None:
            raise UserError(
                f"training.resume_checkpoint_path={self.resume_checkpoint_path}: set "
                "training.resume=true as well to go on from it"
            )
        self.require(_names_a_folder(self.name), "name", "the name of a folder")
        named = self.experiment_name is None or _names_a_folder(self.experiment_name)
        self.require(named, "experiment_name", "the name of a folder")


def _names_a_folder(name: str) -> bool:
    """Whether a folder can be called so; file systems allow 255 bytes, and a date is added."""
    is_short = len(name.encode()) <= _LONGEST_NAME
    return is_short and name not in ("", ".", "..") and "/" not in name and "\0" not in name


@dataclass(frozen=True)
class RunConfig(Settings):
    """All of a training run; see ``conf/train.yaml``."""

    policy: DP3Config
    training: TrainingConfig
