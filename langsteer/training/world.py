"""Which processes train together, as their launcher says.

One process on a CPU or GPU, ``torchrun``, or tasks of a SLURM step: `detect` reads it from the
environment. The batch shell of a SLURM job, and a shell with a single task, train alone: SLURM
starts no other ranks for them.

Example::

    world = detect(os.environ)
    world.is_main  # this process writes and prints
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from langsteer.errors import UserError
from langsteer.processes import usable_cores

_FIRST_PORT, _PORTS = 20000, 20000


@dataclass(frozen=True)
class World:
    """This process among the ranks of a training.

    Attributes:
        rank, local_rank, world_size: place in the run, place on the node, number of processes.
        launcher: "single", "torchrun" or "slurm".
        master_addr, master_port: rank 0 listens there; empty and 0 for a single process.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    launcher: str = "single"
    master_addr: str = ""
    master_port: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    @property
    def is_group(self) -> bool:
        """Whether the processes form a group; torchrun makes one of a single process, too."""
        return self.launcher != "single"

    def __str__(self) -> str:
        if not self.is_group:
            return "1 process"
        if self.world_size == 1:
            return f"a group of 1 process by {self.launcher}"
        return (
            f"{self.world_size} processes by {self.launcher}, "
            f"rendezvous at {self.master_addr}:{self.master_port}"
        )


def detect(environment: Mapping[str, str]) -> World:
    """The world in the launcher's environment variables.

    ``torchrun`` sets RANK and WORLD_SIZE. SLURM sets SLURM_PROCID, SLURM_LOCALID and SLURM_NTASKS,
    in the batch shell too. The batch shell is no task of a step: a step also has SLURM_STEP_ID or
    SLURM_LAUNCH_NODE_IPADDR.

    Raises:
        UserError: the variables contradict each other.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _world(environment, "torchrun", "RANK", "LOCAL_RANK", "WORLD_SIZE")
    in_step = "SLURM_STEP_ID" in environment or "SLURM_LAUNCH_NODE_IPADDR" in environment
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    if "SLURM_PROCID" in environment and in_step and tasks != "1":
        named = {**environment, "SLURM_NTASKS": tasks}
        return _world(named, "slurm", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    return World()


def _world(
    environment: Mapping[str, str], launcher: str, rank: str, local_rank: str, size: str
) -> World:
    values = {name: _integer(environment, name) for name in (rank, local_rank, size)}
    world_size = values[size]
    if not 0 <= values[rank] < world_size:
        raise UserError(f"{rank}={values[rank]} is not within 0..{size}-1={world_size - 1}")
    port = environment.get("MASTER_PORT") or str(_default_port(environment))
    return World(
        rank=values[rank],
        local_rank=values[local_rank],
        world_size=world_size,
        launcher=launcher,
        master_addr=environment.get("MASTER_ADDR") or _meeting_place(environment),
        master_port=_integer({"MASTER_PORT": port}, "MASTER_PORT"),
    )


def _integer(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0")
    if not text.isdigit():
        raise UserError(f"environment variable {name}={text!r}: expected a whole number")
    return int(text)


def _default_port(environment: Mapping[str, str]) -> int:
    """A port from the job's number: jobs of one machine do not share it."""
    return _FIRST_PORT + _integer(environment, "SLURM_JOB_ID") % _PORTS


def _meeting_place(environment: Mapping[str, str]) -> str:
    """Where the ranks find rank 0: the loopback if they all are on one node."""
    names = ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
    nodes = next((environment[name] for name in names if environment.get(name)), None)
    return "127.0.0.1" if nodes == "1" else _first_host(environment)


def _first_host(environment: Mapping[str, str]) -> str:
    """The host of rank 0: the first in the step's list of nodes, else in the job's.

    SLURM_LAUNCH_NODE_IPADDR comes last: on a login host it is the address of srun, not of rank 0.
    """
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if environment.get(name):
            return first_of_nodelist(environment[name])
    return environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")


def first_of_nodelist(nodelist: str) -> str:
    """First host of SLURM's short form: ``"gpu[07-09,12],cpu1"`` is ``"gpu07"``."""
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", nodelist).split(",")[0]
    if not host or set(host) & set("[] "):
        raise UserError(f"list of nodes {nodelist!r}: expected SLURM's form, e.g. node[1-4]")
    return host


def cores_per_rank(environment: Mapping[str, str]) -> int:
    """The CPU cores for this rank and its loader workers.

    SLURM says so (``--cpus-per-task``). Ranks of torchrun on one node share the process's cores, or
    the task's cores inside a SLURM step.
    """
    cores = usable_cores()
    if "SLURM_CPUS_PER_TASK" in environment:
        cores = min(cores, _integer(environment, "SLURM_CPUS_PER_TASK"))
    return cores // max(1, _integer({"LOCAL_WORLD_SIZE": "1", **environment}, "LOCAL_WORLD_SIZE"))


def gpus_of_job(environment: Mapping[str, str]) -> int:
    """Number of GPUs SLURM gave this job on this node; 0 outside of a job."""
    return _integer(environment, "SLURM_GPUS_ON_NODE")
