"""Check a training before it waits in a queue: its data, its configuration, its disk, its Python.

Example, on a login node without a GPU::

    python -m langsteer.training.preflight --nodes 2 --tasks-per-node 4 --gpus-per-node 4 \
        training.batch_size=64

``scripts/slurm_train_dp3.sh --test`` runs it with the script's ``#SBATCH`` lines.
"""

import argparse
from pathlib import Path

import torch

from langsteer.configuration import compose
from langsteer.errors import UserError, exits_cleanly
from langsteer.training.config import RunConfig, TrainingConfig
from langsteer.training.disk import check_disk
from langsteer.training.setup import describe_plan, describe_schedule, open_inputs
from langsteer.training.slurm_request import Request

ISOLATION = (
    "advice: --gpus-per-task shows each task its own GPU alone, which may keep NCCL from copying "
    "directly between the GPUs of a node; add --gpu-bind=none"
)


def check(
    config: RunConfig, nodes: int = 1, tasks_per_node: int = 1, gpus_per_node: int = 0
) -> list[str]:
    """A training as configured, described in a few lines.

    Args:
        config: see ``conf/train.yaml``.
        nodes, tasks_per_node, gpus_per_node: as the job asks SLURM.

    Raises:
        UserError: it could not run; the message says why.
    """
    settings, policy = config.training, config.policy
    ranks = nodes * tasks_per_node
    _check_devices(settings, tasks_per_node, gpus_per_node)
    data, schedule = open_inputs(settings, policy, rank=0, world_size=ranks)
    place = f"{gpus_per_node} GPUs" if gpus_per_node else "no GPU"
    return [
        f"would train {settings.name} with {ranks} processes: {nodes} nodes of {tasks_per_node} "
        f"tasks and {place}",
        f"data: {data.store.path.resolve()}, {len(data.train)} training windows, "
        f"{len(data.val)} of validation",
        describe_schedule(schedule),
        describe_plan(settings),
        check_disk(settings, policy, Path(settings.checkpoint_dir)),
    ]


def _check_devices(settings: TrainingConfig, tasks_per_node: int, gpus_per_node: int) -> None:
    """Whether each process has its GPU, and this Python could use it. GPUs are not asked for."""
    if gpus_per_node and gpus_per_node != tasks_per_node:
        raise UserError(
            f"--ntasks-per-node={tasks_per_node} and --gpus-per-node={gpus_per_node}: one process "
            "per GPU is started; make them equal (or --gpus-per-node=0 for CPUs)"
        )
    if gpus_per_node and settings.device != "cpu" and torch.version.cuda is None:
        raise UserError(
            f"PyTorch {torch.__version__} of this environment is built without CUDA, and the job "
            "asks for GPUs; install a CUDA build (pytorch.org), or use --gpus-per-node=0"
        )
    if settings.device == "cuda" and not gpus_per_node:
        raise UserError("training.device=cuda, but the job asks for no GPU; set --gpus-per-node")


@exits_cleanly
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m langsteer.training.preflight")
    for name, default in (("nodes", 1), ("tasks-per-node", 1), ("gpus-per-node", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, where in (("directive", "in the script, instead"), ("option", "on its command")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="--NAME=VALUE",
            help=f"of sbatch, {where}",
        )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train_dp3.py")
    options = parser.parse_args()
    config = RunConfig.from_dict(compose("train", options.overrides))
    request = Request(options.nodes, options.tasks_per_node, options.gpus_per_node)
    if options.directive or options.option:
        request = Request.parse(options.directive, options.option)
    for line in check(config, request.nodes, request.tasks_per_node, request.gpus_per_node):
        print(line)
    if request.isolates and request.tasks_per_node > 1:
        print(ISOLATION)


if __name__ == "__main__":
    main()
