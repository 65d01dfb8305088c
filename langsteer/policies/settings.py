"""Which checkpoint is run, as commands are told; needs no PyTorch."""

from dataclasses import dataclass

from langsteer.settings import Settings


@dataclass(frozen=True)
class CheckpointSettings(Settings, prefix="policy."):
    """A checkpoint of training or an exported folder, and whether averaged weights are run."""

    ckpt_path: str | None = None
    use_ema: bool = True
