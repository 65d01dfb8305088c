"""Connect the ranks of a training, or say within minutes why they cannot.

Example::

    world = detect(os.environ)
    with process_group(world, torch.device("cpu")):
        ...
"""

import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from langsteer.errors import EXIT_USER_ERROR, UserError
from langsteer.loopback import is_loopback
from langsteer.training.attendance import attendance
from langsteer.training.world import World

RENDEZVOUS_SECONDS = 60
NCCL_SECONDS = 120
# A collective waits for the slowest rank: for its validation, or its writing of a checkpoint.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)
DEFAULT_TIMEOUT = 600.0
"""Seconds that a rank waits for another, see `langsteer.training.attendance`."""


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
