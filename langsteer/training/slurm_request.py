"""A job's request to SLURM, in any form sbatch takes.

Example::

    Request.parse(["--nodes=2", "--ntasks-per-node=4", "--gres=gpu:h100:4"])
    # Request(nodes=2, tasks_per_node=4, gpus_per_node=4)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langsteer.errors import UserError

_GPU_OPTIONS = ("gpus-per-node", "gres", "gpus-per-task", "gpus")


@dataclass(frozen=True)
class Request:
    """Nodes, tasks of a node and GPUs of a node.

    Attributes:
        isolates: whether SLURM would show each task its own GPU alone.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    isolates: bool = False

    @classmethod
    def parse(cls, script: Sequence[str], command: Sequence[str] = ()) -> "Request":
        """Read options, each ``--name=value``. The command's override the script's.

        Tasks and GPUs can be asked for in several forms; the command's form overrides any in the
        script.

        Raises:
            UserError: a value is no number, or tasks do not divide among the nodes.
        """
        given, asked = _options(script), _options(command)
        for names in (_GPU_OPTIONS, ("ntasks", "ntasks-per-node")):
            if any(name in asked for name in names):
                given = {name: value for name, value in given.items() if name not in names}
        options = given | asked
        nodes = _number("nodes", options.get("nodes", "1").split("-")[0])
        tasks = _tasks(options, nodes)
        isolates = "gpus-per-task" in options and options.get("gpu-bind") != "none"
        return cls(nodes, tasks, _gpus(options, nodes, tasks), isolates)


def _options(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.removeprefix("--").partition("=") for line in lines if line.startswith("--")]
    return {name: value for name, _, value in pairs}


def _tasks(options: dict[str, str], nodes: int) -> int:
    if "ntasks-per-node" in options:
        return _number("ntasks-per-node", options["ntasks-per-node"])
    return _shared("ntasks", options.get("ntasks", str(nodes)), nodes)


def _gpus(options: dict[str, str], nodes: int, tasks: int) -> int:
    """GPUs of a node, from whichever option asks for them; 0 without one."""
    if "gpus-per-node" in options:
        return _count("gpus-per-node", options["gpus-per-node"])
    if "gpus-per-task" in options:
        return _count("gpus-per-task", options["gpus-per-task"]) * tasks
    for item in options.get("gres", "").split(","):
        name, _, rest = item.partition(":")
        if name == "gpu":
            return _count("gres", rest or "1")
    return _shared("gpus", str(_count("gpus", options.get("gpus", "0"))), nodes)


def _count(name: str, value: str) -> int:
    """``4`` or ``h100:4``, perhaps with ``(S:0-1)`` behind it, to 4; a type alone is one."""
    last = re.sub(r"\(.*\)$", "", value).split(":")[-1]
    return _number(name, last if last[:1].isdigit() else "1")


def _number(name: str, value: str) -> int:
    if not value.isdigit():
        raise UserError(f"--{name}={value}: expected a whole number")
    return int(value)


def _shared(name: str, value: str, nodes: int) -> int:
    total = _number(name, value)
    if total % nodes:
        raise UserError(
            f"--{name}={total} does not divide among --nodes={nodes}; make it a multiple"
        )
    return total // nodes
