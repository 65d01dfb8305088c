"""The checkpoint to run, in a command's settings; needs no PyTorch."""

from dataclasses import dataclass

from langsteer.settings import Settings


@dataclass(frozen=True)
class CheckpointSettings(Settings, prefix="policy."):
    """A checkpoint of training or an exported folder, and whether to run averaged weights."""

    ckpt_path: str | None = None
    use_ema: bool = True
