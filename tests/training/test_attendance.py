"""A rank that does not come is named by those that wait, and waited for only so long."""

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest
from torch import distributed as dist

from langsteer.training.attendance import attendance
from langsteer.training.distributed import _rendezvous
from langsteer.training.world import World

LONG = ["training.experiment_name=a", "training.num_epochs=500", "training.timeout=30"]
LOOPBACK = "0100007F"


@pytest.mark.parametrize("stopped", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stopped_rank_is_named_and_the_other_ends(training, wait_for, stopped):
    ranks = training.start_ranks(*LONG)
    try:
        wait_for(ranks[0], "epoch 1/")
        assert [listening(rank.pid) for rank in ranks] == [{LOOPBACK}, {LOOPBACK}]
        ranks[stopped].send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        said, _ = ranks[1 - stopped].communicate(timeout=200)
        assert f"rank {1 - stopped} of 2: rank {stopped} has not come for" in said
        assert "waiting 30 s at most (training.timeout)" in said
        assert "longer than training.timeout" in said
        assert ranks[1 - stopped].returncode == 2
        assert time.monotonic() - begun > 20
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def test_a_rank_that_goes_on_in_time_is_waited_for(training, wait_for):
    ranks = training.start_ranks(
        "training.experiment_name=a", "training.num_epochs=8", "training.timeout=60"
    )
    wait_for(ranks[0], "epoch 1/")
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(4)
    ranks[1].send_signal(signal.SIGCONT)
    for rank in ranks:
        said, _ = rank.communicate(timeout=240)
        assert rank.returncode == 0, said
        assert "has not come" not in said


def test_no_thread_talks_to_the_store_after_the_block():
    class SlowStore(dist.HashStore):
        def multi_get(self, keys: list[str]) -> list[bytes]:
            time.sleep(0.5)
            self.set("attendance0", "still here")
            return [b"0 0"]

    store, before = SlowStore(), threading.active_count()
    with attendance(0, 1, store, timeout=60):
        time.sleep(0.1)
    assert threading.active_count() == before
    assert store.get("attendance0") == b"gone"


def listening(process: int | str = "self") -> set[str]:
    """Addresses, in hexadecimal, at which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}


def test_ranks_of_one_node_listen_on_loopback_alone(unused_port):
    store = _rendezvous(World(0, 0, 1, "slurm", "127.0.0.1", unused_port))
    assert listening() == {LOOPBACK}
    del store
