"""The processes of one training: how many there are, and how they connect.

One process on a CPU or GPU, ``torchrun``, or tasks of a SLURM step: `detect` reads it from the
environment, `process_group` connects the ranks. The batch shell of a SLURM job, and a shell with a
single task, train alone: SLURM starts no other ranks for them.

Example::

    world = detect(os.environ)
    with process_group(world, torch.device("cpu")):
        ...
"""

import datetime
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed as dist

from langsteer.errors import EXIT_USER_ERROR, UserError
from langsteer.loopback import is_loopback
from langsteer.processes import usable_cores
from langsteer.training.attendance import arrived, attendance

RENDEZVOUS_SECONDS = 60
NCCL_SECONDS = 120
# A collective waits for the slowest rank: for its validation, or its writing of a checkpoint.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)
DEFAULT_TIMEOUT = 600.0
"""Seconds that a rank waits for another, see `langsteer.training.attendance`."""
# Time between two votes of the ranks on stopping, and the most steps between them.
VOTE_SECONDS, MOST_STEPS = 0.5, 50
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


@contextmanager
def process_group(
    world: World, device: torch.device, timeout: float = DEFAULT_TIMEOUT
) -> Iterator[None]:
    """Connect the ranks for the duration of the block: NCCL on GPUs, else gloo.

    The group has gloo for tensors on the CPU besides NCCL. So the ranks can agree without waiting
    for the GPU.

    Raises:
        UserError: the ranks did not meet within a minute; the message names the missing ones.
    """
    if not world.is_group:
        yield
        return
    if is_loopback(world.master_addr):  # the ranks' connections with each other, as their store's
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before NCCL picks one
    store: dist.Store = dist.HashStore()
    # Two cheap tests come before the real group: its own failures take half an hour to show.
    if world.world_size > 1:
        store = _rendezvous(world)
        _try_network(world, store)
    on_gpus = device.type == "cuda"
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    place = dist.PrefixStore("training", store)
    longest = max(COLLECTIVE_TIMEOUT, 2 * datetime.timedelta(seconds=timeout))
    if not on_gpus:
        with _group(world, backend, place, longest), _attendance(world, timeout):
            yield
        return
    # NCCL can hang inside a C call, out of reach of exceptions: a timer ends the process.
    with ended_after(NCCL_SECONDS, _no_nccl(world, f"no answer within {NCCL_SECONDS} s")) as done:
        print(_trying_nccl(world), file=sys.stderr, flush=True)
        with _group(world, backend, place, longest, device):
            _try_gpus(world, device)
            done()
            with _attendance(world, timeout):
                yield


@contextmanager
def _attendance(world: World, timeout: float) -> Iterator[None]:
    """`attendance`, by a connection of its own to the store."""
    if world.world_size == 1:
        yield
        return
    with attendance(world.rank, world.world_size, _place_of_run(_connect(world)), timeout):
        yield


def _trying_nccl(world: World) -> str:
    return f"rank {world.rank} of {world.world_size}: trying NCCL, {NCCL_SECONDS} s at most"


def _try_gpus(world: World, device: torch.device) -> None:
    """Add up a number over the GPUs: a fault shows now, not after half an hour of waiting in
    DDP."""
    try:
        total = torch.ones(1, device=device)
        dist.all_reduce(total)
        found = float(total)
    except RuntimeError as error:
        raise UserError(_no_nccl(world, str(error).splitlines()[0])) from error
    if found != world.world_size:
        raise UserError(_no_nccl(world, f"a sum of {world.world_size} ones is {found:g}"))


def _no_nccl(world: World, problem: str) -> str:
    return (
        f"rank {world.rank} of {world.world_size}: the GPUs cannot talk by NCCL: {problem}; start "
        "one process for each GPU. NCCL_DEBUG=INFO says what it tries, NCCL_SOCKET_IFNAME names "
        "the network, NCCL_P2P_DISABLE=1 or NCCL_IB_DISABLE=1 leave out a broken path, and "
        "srun --gpu-bind=none shows each task all GPUs of its node"
    )


@contextmanager
def ended_after(seconds: float, message: str) -> Iterator[Callable[[], None]]:
    """End this process if a call into a library never returns: one line, status 2.

    Yields:
        A function to call once the danger is over.
    """

    def end() -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


@contextmanager
def _group(
    world: World,
    backend: str,
    store: dist.Store,
    timeout: datetime.timedelta,
    device: torch.device | None = None,
) -> Iterator[None]:
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=world.rank,
            world_size=world.world_size,
            timeout=timeout,
            # So NCCL connects at once, and never takes another GPU than this rank's.
            device_id=device,
        )
    except RuntimeError as error:
        if device is None:
            raise
        raise UserError(_no_nccl(world, str(error).splitlines()[0])) from error
    try:
        yield
    except BaseException:
        # NCCL's end waits for the other ranks, and they for this one's gradients. Without it the
        # process says at once what is wrong, and aborts its connections when it leaves.
        if "nccl" not in backend:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _try_network(world: World, store: dist.Store) -> None:
    """Connect the ranks for a moment first: the real group would wait for long.

    Rank 0 is reached under MASTER_ADDR, each other rank under the address gloo takes for it.
    """
    timeout = datetime.timedelta(seconds=RENDEZVOUS_SECONDS)
    try:
        with _group(world, "gloo", dist.PrefixStore("trial", store), timeout):
            dist.barrier()
    except RuntimeError as error:
        chosen = os.environ.get("GLOO_SOCKET_IFNAME", "not set")
        raise UserError(
            f"rank {world.rank} of {world.world_size} found rank 0 at {world.master_addr}:"
            f"{world.master_port}, but the ranks cannot connect with each other "
            f"({str(error).splitlines()[0]}); set GLOO_SOCKET_IFNAME ({chosen}) and "
            "NCCL_SOCKET_IFNAME to the network interface that all nodes share (`ip -br address` "
            "lists them)"
        ) from error


def _rendezvous(world: World) -> dist.Store:
    """A store reached by all ranks, within `RENDEZVOUS_SECONDS` from now."""
    deadline = time.monotonic() + RENDEZVOUS_SECONDS
    where = f"{world.master_addr}:{world.master_port}"
    # torchrun's agent listens at the address already; elsewhere rank 0 does.
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        tcp = _connect(world, listens=world.is_main and not has_agent)
    except (RuntimeError, OSError) as error:
        found = "cannot listen there" if world.is_main else "no answer from rank 0"
        raise UserError(
            f"rendezvous at {where}: rank {world.rank} of {world.world_size}: {found} within "
            f"{RENDEZVOUS_SECONDS} s ({str(error).splitlines()[0]}); check that MASTER_ADDR is "
            "rank 0's host and reachable from all nodes, and that MASTER_PORT is free and not "
            "blocked by a firewall"
        ) from error
    store = _place_of_run(tcp)
    _wait_for_all(store, world, where, max(1.0, deadline - time.monotonic()))
    return store


def _place_of_run(store: dist.Store) -> dist.Store:
    """Where a store keeps this run's keys; after torchrun's restart it still has those before."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"langsteer{attempt}", store)


def _connect(world: World, listens: bool = False) -> dist.TCPStore:
    """A connection to the store of the rendezvous; raises RuntimeError or OSError."""
    # PyTorch would listen on all interfaces. Ranks of one node need the loopback alone.
    own = _loopback_socket(world) if listens and is_loopback(world.master_addr) else None
    return dist.TCPStore(
        world.master_addr,
        world.master_port,
        world.world_size,
        is_master=listens,
        timeout=datetime.timedelta(seconds=RENDEZVOUS_SECONDS),
        wait_for_workers=False,
        master_listen_fd=None if own is None else own.detach(),
    )


def _loopback_socket(world: World) -> socket.socket:
    """A socket that listens at the address of the rendezvous."""
    family = socket.getaddrinfo(world.master_addr, world.master_port)[0][0]
    return socket.create_server(
        (world.master_addr, world.master_port), family=family, backlog=world.world_size * 2
    )


def _wait_for_all(store: dist.Store, world: World, where: str, seconds: float) -> None:
    """Raise `UserError` naming the missing ranks."""
    try:
        store.set(f"rank{world.rank}", "here")
        ranks = [f"rank{rank}" for rank in range(world.world_size)]
        store.wait(ranks, datetime.timedelta(seconds=seconds))
    except RuntimeError as error:
        raise UserError(
            f"rendezvous at {where}: {_missing(store, world)} of {world.world_size} did not come "
            f"within {RENDEZVOUS_SECONDS} s; check that all {world.world_size} tasks were started "
            "and can reach that address, and that their GPUs are available"
        ) from error


def _missing(store: dist.Store, world: World) -> str:
    """The missing ranks, e.g. ``"rank 1, 3"``; once rank 0 has given up, only it knows."""
    try:
        missing = [str(r) for r in range(world.world_size) if not store.check([f"rank{r}"])]
    except RuntimeError:
        return "rank 0 gave up since others"
    return f"rank {', '.join(missing)}"


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of ``values`` over all ranks, on each of them; the values themselves if alone."""
    if dist.is_initialized():
        arrived()
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether any rank says yes. The CPU's group answers, so nobody waits for a GPU."""
    return bool(all_sum(torch.tensor(float(flag))))


class Vote:
    """Asks the ranks every few steps whether one of them was told to stop.

    A vote is a message around all nodes, so there are about two a second. In each one the ranks
    also agree on how many steps later the next one comes: each proposes a number from the time of
    its own steps, and the least wins. So all vote after the same step.

    Example::

        vote = Vote(world)
        if vote(stop.requested):
            raise Stopped
    """

    def __init__(self, world: World, clock: Callable[[], float] = time.monotonic) -> None:
        self._world, self._clock = world, clock
        self._every, self._steps, self._since = 1, 0, clock()

    def __call__(self, flag: bool) -> bool:
        """After each step: whether any rank says yes. Every rank hears it after the same step."""
        if not self._world.is_group:
            return flag
        self._steps += 1
        if self._steps < self._every:
            return False
        now = self._clock()
        # Ask about twice a second, in steps: time itself differs between the ranks.
        of_step = (now - self._since) / self._steps
        proposed = min(MOST_STEPS, max(1, int(VOTE_SECONDS / max(of_step, 1e-6))))
        # One maximum serves both: of the flags, and of the negated proposals for the least one.
        asked = torch.tensor([int(flag), -proposed])
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        self._every, self._steps, self._since = -int(asked[1]), 0, now
        return bool(asked[0])


def from_main(value: str) -> str:
    """Rank 0's value, on every rank."""
    values = [value]
    if dist.is_initialized():
        arrived()
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]
