"""The command ``langsteer-export``: make a folder to share out of a training checkpoint.

Example::

    langsteer-export --ckpt_path outputs/checkpoints/my_run/latest.ckpt --save_path exported/my_run
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langsteer.command_line import command_parser
from langsteer.errors import UserError, exits_cleanly

if TYPE_CHECKING:
    from torch import Tensor

    from langsteer.policies.exported import ExportedPolicy


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the given arguments, by default those of the process."""
    options = _parser().parse_args(arguments)
    from langsteer.policies.exported import write_export  # PyTorch, which help does without
    from langsteer.policies.loading import load_policy

    policy = exported(options.ckpt_path, options.execute)
    size = write_export(options.save_path, policy, options.half, options.overwrite)
    load_policy(options.save_path)  # what was written can be read
    was = options.ckpt_path[0].stat().st_size
    print(f"{options.save_path}: {size / 1e6:.1f} MB, a checkpoint has {was / 1e6:.1f} MB")


def exported(checkpoints: Sequence[Path], execute: int | None = None) -> "ExportedPolicy":
    """What inference needs of a checkpoint: averaged weights, where it has any.

    Args:
        checkpoints: of training. Of several the mean of the weights is taken, a model soup
            (Wortsman et al. 2022, arXiv 2203.05482); one must be trained on from the other.
        execute: actions to execute of a prediction; None: as many as in training.

    Raises:
        UserError: a checkpoint cannot be read or is of another network or normaliser than the
            first, or a prediction has fewer actions.
    """
    from langsteer.policies.dp3 import DP3Config
    from langsteer.policies.exported import ExportedPolicy
    from langsteer.policies.loading import read_checkpoint

    payloads = [read_checkpoint(checkpoint, mmap=True) for checkpoint in checkpoints]
    first = payloads[0]
    averaged = all(payload.get("ema") is not None for payload in payloads)
    weights = [payload["ema" if averaged else "model"] for payload in payloads]
    kinds = [DP3Config.from_dict(payload["config"]["policy"]).lasting() for payload in payloads]
    for checkpoint, payload, other, kind in zip(checkpoints, payloads, weights, kinds, strict=True):
        built_alike = kind == kinds[0] and payload["pipeline"] == first["pipeline"]
        if not built_alike or not _can_be_averaged(other, weights[0]):
            raise UserError(
                f"{checkpoint}: its network, normaliser or observation pipeline is not that of "
                f"{checkpoints[0]}; average checkpoints of one policy's trainings"
            )
    config = first["config"]["policy"]
    if execute is not None:
        config = DP3Config.from_dict({**config, "n_action_steps": execute}).to_dict()
    origin = _origin(first, averaged)
    if len(payloads) > 1:
        origin["mean_of"] = [_origin(payload, averaged)["experiment"] for payload in payloads]
    return ExportedPolicy(config, first["pipeline"], _mean(weights), origin)


def _can_be_averaged(one: Mapping[str, "Tensor"], other: Mapping[str, "Tensor"]) -> bool:
    """Whether two sets of weights have the same shapes and one normaliser."""
    if {name: value.shape for name, value in one.items()} != {
        name: value.shape for name, value in other.items()
    }:
        return False
    return all(one[name].equal(other[name]) for name in one if _is_given(name, one[name]))


def _mean(weights: Sequence[Mapping[str, "Tensor"]]) -> dict[str, "Tensor"]:
    """The mean of each weight over the checkpoints, in its own precision."""
    from torch import stack

    mean = dict(weights[0])
    if len(weights) == 1:
        return mean
    for name, value in mean.items():
        if not _is_given(name, value):
            mean[name] = stack([each[name].double() for each in weights]).mean(0).to(value.dtype)
    return mean


def _is_given(name: str, value: "Tensor") -> bool:
    """Whether training leaves a value alone."""
    return name.startswith("normalizer.") or not value.is_floating_point()


def _origin(payload: dict[str, Any], averaged: bool) -> dict[str, Any]:
    """Which training made the policy, without paths of its machine."""
    training = payload["config"]["training"]
    return {
        "experiment": training["experiment_name"] or training["name"],
        "dataset": Path(str(training["dataset"]["zarr_path"])).name,
        "averaged_weights": averaged,
        **{key: payload[key] for key in ("epoch", "step", "provenance") if key in payload},
    }


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write what inference needs of a training checkpoint as a folder: weights as "
        "safetensors, everything else as JSON. All commands take it in a checkpoint's place.",
    )
    add = parser.add_argument
    add(
        "--ckpt_path",
        type=Path,
        nargs="+",
        required=True,
        help="a checkpoint of training; of several the mean of the weights",
    )
    add("--save_path", type=Path, required=True, help="the folder to make, e.g. exported/my_run")
    add("--half", action="store_true", help="store weights in float16, at half the size")
    add(
        "--execute",
        type=int,
        metavar="K",
        help="actions to execute of a prediction, before the next one; as in training if not given",
    )
    add("--overwrite", action="store_true", help="replace an export that is there")
    return parser
