"""Read weights of the reference implementation of DP3 into a `DP3`.

Example::

    policy = load_reference_checkpoint("latest.ckpt", DP3Config())

Submodules have the reference's names, so that only the normaliser's entries are renamed, and its
zero-size placeholders dropped. A ``.ckpt`` is a pickle inside torch's zip file, and names classes
of foreign packages; it is read by an unpickler that builds tensors and plain containers alone, and
puts an inert placeholder where any other class stands. Nothing of the file is ever run.
"""

import dataclasses
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langsteer.errors import UserError
from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.policy import DP3

PLACEHOLDERS = ("_dummy_variable", "mask_generator._dummy_variable")
NORMALIZER = "normalizer.params_dict."
KINDS = ("action", "agent_pos", "point_cloud")


def convert_reference_state_dict(
    reference: Mapping[str, Tensor], config: DP3Config
) -> dict[str, Tensor]:
    """The reference's state dict under our names.

    Its limits' statistics are dropped, since scale and offset say the same. Points may have been
    fitted with one value or six channels, of which the reference uses the first three.
    """
    converted: dict[str, Tensor] = {}
    for name, value in reference.items():
        if name.startswith(NORMALIZER):
            kind, _, parameter = name.removeprefix(NORMALIZER).partition(".")
            if kind not in KINDS or parameter not in ("scale", "offset"):
                continue
            if kind == "point_cloud":
                value = value.expand(config.point_dim) if len(value) == 1 else value
                value = value[: config.point_dim]
            converted[f"normalizer.{kind}.{parameter}"] = value
        elif name not in PLACEHOLDERS:
            converted[name] = value
    return converted


def load_reference_state_dict(policy: DP3, reference: Mapping[str, Tensor], source: str) -> DP3:
    """Load a reference state dict into ``policy``, every entry of it; returns the policy.

    Raises:
        UserError: where entries are missing, unknown or of another shape; ``source`` is named.
    """
    converted = convert_reference_state_dict(reference, policy.config)
    try:
        policy.load_state_dict(converted)
    except RuntimeError as error:
        raise UserError(
            f"{source}: these weights do not fit the policy's config: {error}"
        ) from error
    return policy


def load_reference_checkpoint(
    path: str | Path,
    config: DP3Config,
    pipeline: Mapping[str, Any] | None = None,
    use_ema: bool = True,
) -> DP3:
    """A policy with the weights of a reference ``.ckpt``, those of its EMA where it has them.

    Its config is not read (it is an object of a foreign class): give the one that it was trained
    with, and the observation pipeline of its clouds. Its ``agent_pos`` holds whole ``robot_obs``.
    """
    path = Path(path)
    state_dicts = read_reference_checkpoint(path).get("state_dicts")
    if not isinstance(state_dicts, dict) or "model" not in state_dicts:
        raise UserError(f"{path}: holds no state_dicts.model; is it a checkpoint of DP3?")
    weights = state_dicts["model"]
    if use_ema and "ema_model" in state_dicts:
        weights = state_dicts["ema_model"]
    policy = DP3(dataclasses.replace(config, agent_pos="full"), pipeline)
    return load_reference_state_dict(policy, weights, str(path))


def read_reference_checkpoint(path: Path) -> dict[str, Any]:
    """The payload of a file that ``torch.save`` wrote, by any pickle module, without running it.

    Raises:
        UserError: where the file is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: not a file of torch.save: it holds no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            payload = _InertUnpickler(archive, root).load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a readable file of torch.save: {error}") from error
    if not isinstance(payload, dict):
        raise UserError(f"{path}: holds {type(payload).__name__}, expected a dict")
    return payload


class _Inert:
    """Stands for an object of a class that is not admitted, and forgets what it is given."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> "_Inert":
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Forget the item."""

    def extend(self, items: object) -> None:
        """Forget the items."""


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """A copy of the view; ``as_strided`` itself checks that it lies inside the storage."""
    return storage.as_strided(size, stride, offset).clone()


def _rebuild_parameter(data: Tensor, *_: object) -> Tensor:
    return data


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8")
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return _ADMITTED.get((module, name), _Inert)

    def persistent_load(self, pid: object) -> Tensor:
        if not (isinstance(pid, tuple) and len(pid) == 5 and isinstance(pid[1], torch.dtype)):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        _kind, dtype, key, _device, count = pid
        if key not in self.storages:
            raw = bytearray(self.archive.read(f"{self.root}data/{key}"))
            self.storages[key] = (
                torch.frombuffer(raw, dtype=dtype, count=count) if raw else torch.empty(0).to(dtype)
            )
        return self.storages[key]
