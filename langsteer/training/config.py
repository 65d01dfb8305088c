"""The training configuration: names, types and bounds of ``conf/training/*.yaml``.

Example::

    config = TrainingConfig.from_dict(compose("train")["training"])
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from langsteer.errors import UserError
from langsteer.policies.precision import PRECISIONS

TAILS = ("repeat", "zero_motion")
SENTENCES = ("own", "task")
DEVICES = ("auto", "cpu", "cuda")
COMPRESSIONS = ("none", "bf16")
RESUME = ("true", "false", "auto")


@dataclass
class DatasetConfig:
    """Which windows of which store; see ``conf/training/dp3_calvin.yaml``."""

    zarr_path: str | None = None
    max_train_episodes: int | None = None
    val_ratio: float = 0.02
    tail: str = "repeat"
    sentences: str = "own"


@dataclass
class WandbConfig:
    """Logging to Weights & Biases."""

    enabled: bool = True
    project: str = "langsteer_dp3"
    entity: str | None = None
    mode: str = "online"


@dataclass
class TrainingConfig:
    """Everything about a run but the policy; see ``conf/training/dp3_calvin.yaml``."""

    name: str
    experiment_name: str | None
    checkpoint_dir: str
    seed: int
    num_epochs: int
    batch_size: int
    gradient_accumulation_steps: int
    num_workers: int
    learning_rate: float
    betas: list[float]
    weight_decay: float
    warmup_steps: int
    use_ema: bool
    val_every: int
    val_action_samples: int
    checkpoint_every: int
    top_k: int
    log_every: int
    resume: str
    resume_checkpoint_path: str | None
    device: str
    precision: str
    compile: bool
    points_on_device: str
    # With defaults: checkpoints of earlier versions do not have them.
    deterministic: bool = False
    gradient_compression: str = "none"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        self.resume = str(self.resume).lower()
        self.points_on_device = str(self.points_on_device).lower()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """Check types and bounds; raises `UserError` that names the key."""
        try:
            merged = OmegaConf.merge(OmegaConf.structured(cls), OmegaConf.create(dict(values)))
            config = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise UserError(f"training.{error.full_key}: {error.msg}") from error
        assert isinstance(config, cls)
        config._check()
        return config

    def _check(self) -> None:
        at_least = {
            "num_epochs": 1,
            "batch_size": 1,
            "gradient_accumulation_steps": 1,
            "num_workers": 0,
            "warmup_steps": 0,
            "val_every": 1,
            "val_action_samples": 0,
            "checkpoint_every": 1,
            "top_k": 1,
            "log_every": 1,
            "seed": 0,
        }
        for name, bound in at_least.items():
            _require(getattr(self, name) >= bound, name, getattr(self, name), f">= {bound}")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "> 0")
        ratio = self.dataset.val_ratio
        _require(0 <= ratio < 1, "dataset.val_ratio", ratio, "within 0 and 1")
        episodes = self.dataset.max_train_episodes
        _require(episodes is None or episodes >= 1, "dataset.max_train_episodes", episodes, ">= 1")
        _require(len(self.betas) == 2, "betas", self.betas, "two numbers")
        _require_one_of("dataset.tail", self.dataset.tail, TAILS)
        _require_one_of("dataset.sentences", self.dataset.sentences, SENTENCES)
        _require_one_of("device", self.device, DEVICES)
        _require_one_of("precision", self.precision, PRECISIONS)
        _require_one_of("gradient_compression", self.gradient_compression, COMPRESSIONS)
        _require_one_of("resume", self.resume, RESUME)
        _require_one_of("points_on_device", self.points_on_device, RESUME)
        _require_one_of("wandb.mode", self.wandb.mode, ("online", "offline"))
        folder = self.experiment_name
        if self.resume == "false" and self.resume_checkpoint_path is not None:
            raise UserError(
                f"training.resume_checkpoint_path={self.resume_checkpoint_path}: set "
                "training.resume=true as well to go on from it"
            )
        is_name = folder is None or (folder not in ("", ".", "..") and "/" not in folder)
        _require(is_name, "experiment_name", folder, "the name of a folder")


def _require(holds: object, name: str, found: object, expected: str) -> None:
    if not holds:
        raise UserError(f"training.{name}={found}: expected {expected}")


def _require_one_of(name: str, found: str, options: tuple[str, ...]) -> None:
    _require(found in options, name, found, "one of " + ", ".join(options))
