"""Open a policy from a checkpoint of training, or from an exported folder (`exported`).

Example::

    policy = load_policy("outputs/checkpoints/my_run/latest.ckpt")
    actions = policy.predict_action(obs)["action"]

Opening either runs no code of it (``torch.load(weights_only=True)``, safetensors).
"""

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import torch

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies import shipped_base, shipped_policy
from langsteer.policies.dp3 import DP3, DP3Config
from langsteer.policies.exported import export_config, export_identity, read_export
from langsteer.policies.precision import PRECISIONS, Precision
from langsteer.policies.weights import check_tensors
from langsteer.records import problem

SHIPPED, SHIPPED_BASE = "shipped", "shipped_base"
"""Name the policies that come with the package in a checkpoint's place."""
CHECKPOINT_FORMAT = "langsteer-checkpoint"
CHECKPOINT_VERSION = 1
_MOST_NAMED = 6  # checkpoints in a message


class _Config(TypedDict):
    policy: dict[str, Any]


class _Policy(TypedDict):
    """What inference reads of a checkpoint."""

    config: _Config
    pipeline: dict[str, Any] | None
    model: dict[str, Any]
    ema: NotRequired[dict[str, Any] | None]


def load_policy(
    path: str | Path,
    device: str | torch.device = "cpu",
    use_ema: bool = True,
    precision: str = "auto",
) -> DP3:
    """The policy of a checkpoint or an export, with normaliser and pipeline, ready to predict.

    Args:
        path: a checkpoint of training, a folder by `exported`, or `SHIPPED`.
        device: the policy's.
        use_ema: its averaged weights (the validated ones), or the last ones of training. A run
            without averaging has the latter only, an export only those it was made from.
        precision: of `PRECISIONS`; ``auto`` is bf16 on GPUs that compute in it, else fp32.

    Raises:
        UserError: the precision is unknown, or the file is missing, damaged, or no checkpoint of
            this version.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    path = checked_path(path)
    source = _read_export(path) if path.is_dir() else _read_training(path, use_ema)
    policy = _empty_policy(path, source)
    # An unfitted normaliser is NaN: better no policy than a robot on NaN.
    _require_fitted(path, source.weights)
    check_tensors(path, source.weights, policy.state_dict(), unset=("language.probe",))
    policy.load_state_dict(
        {key: value.clone() for key, value in source.weights.items()}, assign=True
    )
    policy.precision = Precision.choose(precision, torch.device(device))
    policy.to(device).eval().requires_grad_(False)
    # Weights never change from here on, so rounding them once is enough.
    policy.precision.cast_weights(policy.model)
    return policy


def _empty_policy(path: Path, source: "_Source") -> DP3:
    """The policy of a file's configuration, without weights."""
    try:
        if source.pipeline is not None:
            ObservationPipeline.from_dict(source.pipeline)
        with torch.device("meta"):  # no time is spent on initial weights
            return DP3(DP3Config.from_dict(source.config), source.pipeline)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _require_fitted(path: Path, weights: dict[str, Any]) -> None:
    """Tell a policy without a normaliser from one whose numbers were damaged."""
    scale = weights.get("normalizer.action.scale")
    if isinstance(scale, torch.Tensor) and scale.numel() <= 1000 and scale.isnan().all():
        raise UserError(f"{path}: its normalizer was never fitted; train with a newer version")


@dataclass(frozen=True)
class _Source:
    """The parts of a policy: configuration, observation pipeline, weights by name."""

    config: dict[str, Any]
    pipeline: dict[str, Any] | None
    weights: dict[str, torch.Tensor]


def _read_training(path: Path, use_ema: bool) -> _Source:
    # Mapped: the optimiser's state is two thirds of the file, and is not read here.
    payload = read_checkpoint(path, mmap=True)
    weights = payload["ema"] if use_ema and payload.get("ema") is not None else payload["model"]
    return _Source(payload["config"]["policy"], payload["pipeline"], weights)


def _read_export(folder: Path) -> _Source:
    exported = read_export(folder)
    return _Source(exported.config, exported.pipeline, exported.weights)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Everything in a checkpoint, as tensors on the CPU and plain values.

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of this version.
    """
    if not path.is_file():
        dropped = path.parent.is_dir() and path.name.startswith("epoch_")
        why = " (a training keeps the best training.top_k)" if dropped else ""
        raise UserError(f"{path}: no such checkpoint{why}{_what_is_there(path)}")
    if not zipfile.is_zipfile(path):  # PyTorch would talk of its formats
        raise UserError(
            f"{path}: damaged, or not a checkpoint of LangSteer: cut off, or another kind of file "
            f"({path.stat().st_size} bytes){_what_is_there(path)}"
        )
    try:
        payload: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        # A damaged archive can raise anything that its parser stumbles over.
        raise UserError(
            f"{path}: damaged, or not a checkpoint of LangSteer (weights of the reference "
            f"implementation: langsteer.policies.dp3.reference): {error!s:.1000}"
        ) from error
    found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
    if found != CHECKPOINT_FORMAT:
        raise UserError(f"{path}: format {found!r:.100}, expected {CHECKPOINT_FORMAT!r}")
    if payload.get("version") != CHECKPOINT_VERSION:
        raise UserError(
            f"{path}: version {payload.get('version')!r:.100}, this LangSteer reads "
            f"{CHECKPOINT_VERSION}"
        )
    wrong = problem(payload, _Policy)
    if wrong:
        raise UserError(f"{path}: damaged: {wrong}")
    return payload


def _what_is_there(path: Path) -> str:
    """``"; found in X: a, b"``: other checkpoints of the folder, or of the folder above it."""
    for folder, pattern in ((path.parent, "*.ckpt"), (path.parent.parent, "*/*.ckpt")):
        found = sorted(str(other.relative_to(folder)) for other in folder.glob(pattern))
        found = [name for name in found if folder / name != path]
        if found:
            more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            return f"; found in {folder}: {', '.join(found[:_MOST_NAMED])}{more}"
    return ""


def checked_path(path: str | Path | None) -> Path:
    """A checkpoint's path, also of a policy of the package; raises `UserError` if none is named."""
    if path is None:
        raise UserError(
            "no checkpoint: set policy.ckpt_path=outputs/checkpoints/.../latest.ckpt, or "
            f"policy.ckpt_path={SHIPPED} for the policy that comes with LangSteer"
        )
    if path == SHIPPED:
        return shipped_policy()
    return shipped_base() if path == SHIPPED_BASE else Path(path)


def checkpoint_identity(path: str | Path | None) -> dict[str, Any]:
    """A checkpoint's path, its size, and a digest of its end.

    A checkpoint's end holds the checksums of all its tensors.

    Raises:
        UserError: None, or as `read_checkpoint`.
    """
    path = checked_path(path)
    if path.is_dir():
        return export_identity(path)
    read_checkpoint(path, mmap=True)  # finds bad input before a folder is made for it
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, min(archive.start_dir, size - 65536)))
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    return {"path": str(path), "bytes": size, "sha256_of_end": digest}


def reads_sentences(path: str | Path | None) -> bool:
    """Whether the policy of a checkpoint or an export follows sentences; weights are not read.

    Raises:
        UserError: None, or as `load_policy`.
    """
    path = checked_path(path)
    if path.is_dir():
        config = export_config(path)
    else:
        config = read_checkpoint(path, mmap=True)["config"]["policy"]
    return DP3Config.from_dict(config).language


def precision_name(wanted: str, device: Literal["auto", "cpu", "cuda"]) -> str:
    """The arithmetic of ``wanted``, of `PRECISIONS`, on a device; results name it.

    Raises:
        UserError: there is no such device.
    """
    return Precision.choose(wanted, torch.device(device_name(device))).name


def device_name(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """``cpu`` or ``cuda``; ``auto`` is the GPU if there is one.

    Raises:
        UserError: a GPU is wanted and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch finds no GPU here; use device=cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
