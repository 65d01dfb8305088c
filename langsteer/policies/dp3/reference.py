"""Read weights of the reference implementation of DP3 into a `DP3`.

Example::

    policy = load_reference_checkpoint("latest.ckpt", DP3Config())

Submodules have the reference's names. So only the normaliser's entries are renamed, and its
zero-size placeholders dropped. A ``.ckpt`` is a pickle inside torch's zip file, and names classes
of foreign packages. `langsteer.inert_pickle` reads it: it builds tensors and plain containers
alone, and a placeholder for any other class. Nothing of it is ever run.
"""

import dataclasses
import math
import os
import reprlib
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langsteer.errors import UserError
from langsteer.inert_pickle import InertUnpickler, Name, RefusedPickleError
from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.policy import DP3
from langsteer.reading import open_regular

PLACEHOLDERS = ("_dummy_variable", "mask_generator._dummy_variable")
NORMALIZER = "normalizer.params_dict."
KINDS = ("action", "agent_pos", "point_cloud")
_MOST_BYTES = 1 << 36  # with its optimiser a checkpoint of the reference's largest network has 2^32


def convert_reference_state_dict(
    reference: Mapping[str, Tensor], config: DP3Config
) -> dict[str, Tensor]:
    """The reference's state dict under our names.

    Its limits' statistics are dropped, since scale and offset say the same. Points may have been
    fitted with one value or with six channels; the reference uses the first three.
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
        UserError: entries are missing, unknown or of another shape; ``source`` is named.
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
    pipeline: Mapping[str, object] | None = None,
    use_ema: bool = True,
) -> DP3:
    """A policy with the weights of a reference ``.ckpt``, those of its EMA if it has them.

    Its config is not read, being an object of a foreign class. Give the config of its training and
    the observation pipeline of its clouds. Its ``agent_pos`` holds whole ``robot_obs``.
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
    """The payload of a file by ``torch.save``, with any pickle module, without running it.

    Raises:
        UserError: it is no such file.
    """
    try:
        with (
            os.fdopen(open_regular(path, _MOST_BYTES), "rb") as file,
            zipfile.ZipFile(file) as archive,
        ):
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: not a file of torch.save: it holds no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            payload = _CheckpointUnpickler(archive, root).load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError:
        raise
    except Exception as error:
        # A damaged archive can make its parser raise anything.
        raise UserError(f"{path}: not a readable file of torch.save: {error}") from error
    if not isinstance(payload, dict):
        raise UserError(f"{path}: holds {type(payload).__name__}, expected a dict")
    return payload


class _Inert:
    """Stands for an object of a class that is not admitted, and forgets what it is given."""


class _CheckpointUnpickler(InertUnpickler):
    """Makes tensors and plain containers, and an `_Inert` of all else."""

    key_types = (*InertUnpickler.key_types, _Inert)
    callables = (Name, _Inert)

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(_stored(archive, f"{root}data.pkl"))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find(self, name: Name) -> object:
        """The dtype of a storage, an admitted name, or a placeholder."""
        if name.module == "torch" and name.name in _STORAGES:
            return _STORAGES[name.name]
        return name if str(name) in _ADMITTED else _Inert()

    def call(self, function: object, args: tuple[Any, ...]) -> object:
        """A tensor, an ordered dictionary, or a placeholder."""
        match str(function), args:
            case "torch._utils._rebuild_tensor_v2", (Tensor() as storage, offset, size, stride, *_):
                return _view(storage, offset, size, stride)
            case "torch._utils._rebuild_parameter", (Tensor() as data, *_):
                return data
            case "collections.OrderedDict", ():
                return OrderedDict()
        if isinstance(function, _Inert):
            return function
        raise RefusedPickleError(f"it calls {function} with other arguments than torch does")

    def build(self, target: object, state: object) -> object:
        """The target without the state: attributes of a foreign class, metadata of a dictionary."""
        return target

    def fill_dict(self, target: object, pairs: Iterable[tuple[object, object]]) -> None:
        """As the base class; a placeholder forgets the items."""
        if not isinstance(target, _Inert):
            super().fill_dict(target, pairs)

    def extend_list(self, target: object, items: list[Any]) -> None:
        """As the base class; a placeholder forgets the items."""
        if not isinstance(target, _Inert):
            super().extend_list(target, items)

    def persistent(self, pid: object) -> Tensor:
        """The storage of an id, as a flat tensor; several tensors may view one."""
        match pid:
            case (_, torch.dtype() as dtype, str(key), _, int(count)):
                if key not in self.storages:
                    raw = bytearray(_stored(self.archive, f"{self.root}data/{key}"))
                    self.storages[key] = _flat(raw, dtype, count)
                return self.storages[key]
        raise RefusedPickleError(f"unknown storage {reprlib.repr(pid)}")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of the archive; torch compresses none, so it cannot grow."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise RefusedPickleError(f"{name} is compressed, which torch does not do")
    return archive.read(member)


def _flat(raw: bytearray, dtype: torch.dtype, count: int) -> Tensor:
    """A storage's bytes as a tensor of one dimension."""
    if len(raw) != count * dtype.itemsize:
        raise RefusedPickleError(f"a storage of {len(raw)} bytes for {count} {dtype}")
    return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _view(storage: Tensor, offset: object, size: object, stride: object) -> Tensor:
    """A view inside its storage, with no more elements than it."""
    match offset, size, stride:
        case int(first), (*lengths,), (*steps,) if len(lengths) == len(steps):
            shape, strides = _counts(lengths), _counts(steps)
            count = math.prod(shape)
            if count == 0:
                return storage.new_empty(shape)
            # A stride could lead outside the storage, and the memory there belongs to somebody
            # else.
            last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
            if 0 <= first <= last < storage.numel() >= count:
                return storage.as_strided(shape, strides, first)
    raise RefusedPickleError(f"a tensor of shape {reprlib.repr(size)} outside its storage")


def _counts(values: Sequence[object]) -> list[int]:
    """The values, if each is an integer from zero up."""
    counts = [value for value in values if type(value) is int and value >= 0]
    if len(counts) != len(values):
        raise RefusedPickleError(f"lengths or strides {reprlib.repr(values)}")
    return counts


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
_ADMITTED = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)
