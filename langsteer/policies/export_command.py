"""The command ``langsteer-export``: make a folder to share out of a training checkpoint.

Example::

    langsteer-export --ckpt_path outputs/checkpoints/my_run/latest.ckpt --save_path exported/my_run
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langsteer.command_line import command_parser
from langsteer.errors import exits_cleanly

if TYPE_CHECKING:
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
    was = options.ckpt_path.stat().st_size
    print(f"{options.save_path}: {size / 1e6:.1f} MB, the checkpoint has {was / 1e6:.1f} MB")


def exported(checkpoint: Path, execute: int | None = None) -> "ExportedPolicy":
    """What inference needs of a checkpoint: averaged weights, where it has any.

    Args:
        checkpoint: of training.
        execute: actions to execute of a prediction; None: as many as in training.

    Raises:
        UserError: the checkpoint cannot be read, or a prediction has fewer actions.
    """
    from langsteer.policies.dp3 import DP3Config
    from langsteer.policies.exported import ExportedPolicy
    from langsteer.policies.loading import read_checkpoint

    payload = read_checkpoint(checkpoint, mmap=True)
    averaged = payload.get("ema") is not None
    weights = payload["ema"] if averaged else payload["model"]
    config = payload["config"]["policy"]
    if execute is not None:
        config = DP3Config.from_dict({**config, "n_action_steps": execute}).to_dict()
    return ExportedPolicy(config, payload["pipeline"], weights, _origin(payload, averaged))


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
    add("--ckpt_path", type=Path, required=True, help="a checkpoint of training")
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
