"""A policy as a folder to share: weights as safetensors, everything else as JSON.

A training checkpoint holds all that training needs to go on. An export holds all that inference
needs: averaged weights, configuration, normaliser, observation pipeline, and their origin.

Example::

    write_export(Path("exported/my_run"), ExportedPolicy(config, pipeline, weights, origin))
    policy = langsteer.policies.loading.load_policy("exported/my_run")

The folder has two files. ``policy.json`` describes the policy and holds the digest of
``policy.safetensors``. So files of different exports are never taken together.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_weights
from safetensors.torch import save as serialise_weights
from torch import Tensor

from langsteer.errors import UserError
from langsteer.files import discard, replacing
from langsteer.reading import read_bytes, read_json

FORMAT, VERSION = "langsteer-policy", 1
WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"
_LARGEST_DESCRIPTION, _LARGEST_WEIGHTS = 1 << 20, 1 << 34


@dataclass(frozen=True)
class ExportedPolicy:
    """The content of a folder.

    Attributes:
        config: of the policy, plain values.
        pipeline: of its observations, plain values; None if the training knew none.
        weights: name to tensor, on the CPU.
        origin: of the policy, plain values.
    """

    config: dict[str, Any]
    pipeline: dict[str, Any] | None
    weights: dict[str, Tensor]
    origin: dict[str, Any]


def write_export(
    folder: Path, policy: ExportedPolicy, half: bool = False, overwrite: bool = False
) -> int:
    """Write a policy as a folder.

    Args:
        folder: to be made.
        policy: to be written.
        half: store the network's weights in float16, at half the size; the normaliser stays in
            float32.
        overwrite: replace a folder with an export.

    Returns:
        Bytes of the folder.

    Raises:
        UserError: the folder is in use.
    """
    _make_room(folder, overwrite)
    stored = {name: _stored(name, value, half) for name, value in policy.weights.items()}
    weights = serialise_weights(stored)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "policy": policy.config,
        "pipeline": policy.pipeline,
        "origin": {**policy.origin, "stored_as": "float16" if half else "float32"},
    }
    text = json.dumps(description, indent=1) + "\n"
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
    # Last: the description says the weights are there.
    with replacing(folder / DESCRIPTION) as temporary:
        temporary.write_text(text)
    return len(weights) + len(text)


def _make_room(folder: Path, overwrite: bool) -> None:
    """Check that nothing of somebody else's is at ``folder``."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder}: not empty and no export; choose another folder")
    if not overwrite:
        raise UserError(f"{folder}: holds an export already; give --overwrite to replace it")
    # By rename, so a kill leaves no half export under this name.
    discard(folder)


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().contiguous().cpu()
    halved = half and value.is_floating_point() and not name.startswith("normalizer.")
    return value.half() if halved else value.clone()


def read_export(folder: Path) -> ExportedPolicy:
    """The policy of a folder, weights in float32; nothing in it can run code.

    Raises:
        UserError: a file is missing, damaged, from another export or of another version.
    """
    description = _read_description(folder)
    path = folder / WEIGHTS
    # Read once and checked as read: the digest is that of the very bytes that are parsed.
    try:
        content = read_bytes(path, _LARGEST_WEIGHTS)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path}: missing; copy the whole folder of the export again") from error
    if hashlib.sha256(content).hexdigest() != description.get("weights_sha256"):
        raise UserError(
            f"{path}: not the weights that {DESCRIPTION} describes: damaged, or from another "
            "export; copy the whole folder again"
        )
    try:
        weights = parse_weights(content)
    except SafetensorError as error:
        raise UserError(f"{path}: no safetensors file: {error}") from error
    return ExportedPolicy(
        config=description["policy"],
        pipeline=description["pipeline"],
        weights={
            name: value.float() if value.is_floating_point() else value
            for name, value in weights.items()
        },
        origin=description["origin"],
    )


def export_identity(folder: Path) -> dict[str, Any]:
    """An export's path, the size and the digest of its weights; raises as `read_export`."""
    description = _read_description(folder)
    return {
        "path": str(folder),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": description["weights_sha256"][:16],
    }


def export_config(folder: Path) -> dict[str, Any]:
    """The configuration of an export's policy, without its weights; raises as `read_export`."""
    config: dict[str, Any] = _read_description(folder)["policy"]
    return config


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        found = read_json(path, _LARGEST_DESCRIPTION)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(
            f"{path}: missing, so {folder} is no exported policy; give a folder that "
            "langsteer-export wrote, or a checkpoint (.ckpt)"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path}: not the description of an exported policy")
    if found.get("version") != VERSION:
        raise UserError(
            f"{path}: version {found.get('version')}, this LangSteer reads {VERSION}; export the "
            "checkpoint again with this version"
        )
    for key in ("policy", "origin"):
        if not isinstance(found.get(key), dict):
            raise UserError(f"{path}: damaged: no {key!r}")
    if not isinstance(found.get("pipeline"), dict | None):
        raise UserError(f"{path}: damaged: 'pipeline' is no table")
    return found
