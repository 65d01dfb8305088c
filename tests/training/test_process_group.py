"""The group of ranks: how it meets, tries its GPUs and ends, and how its gradients add up."""

import gc
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from torch import distributed as dist
from torch import nn

from langsteer.errors import UserError
from langsteer.training import distributed
from langsteer.training.pytorch_util import data_parallel
from langsteer.training.world import World


@pytest.fixture
def group_calls(monkeypatch):
    """What `process_group` asks PyTorch for, in order; there is no GPU here to ask for real."""
    calls = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(str(device)))
    monkeypatch.setattr(distributed, "_rendezvous", lambda world: dist.HashStore())
    monkeypatch.setattr(distributed, "_try_network", lambda world, store: calls.append("trial"))
    monkeypatch.setattr(distributed, "_attendance", lambda world, timeout: nullcontext())
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(
        dist,
        "init_process_group",
        lambda backend, device_id, **kwargs: calls.append(f"{backend} on {device_id}"),
    )

    def all_reduce(values):
        calls.append("all_reduce")
        values *= 2

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("end"))
    return calls


SECOND_OF_TWO = World(1, 1, 2, "torchrun", master_addr="127.0.0.1", master_port=1)


def test_gpu_is_set_before_nccl_picks_one(group_calls):
    with distributed.process_group(SECOND_OF_TWO, torch.device("cuda", 1)):
        group_calls.append("training")
    assert group_calls == [
        "cuda:1",
        "trial",
        "cpu:gloo,cuda:nccl on cuda:1",
        "all_reduce",
        "training",
        "end",
    ]


def test_rank_that_fails_does_not_wait_for_the_others(group_calls):
    with (
        pytest.raises(UserError, match="out of memory"),
        distributed.process_group(SECOND_OF_TWO, torch.device("cuda", 1)),
    ):
        raise UserError("out of memory")
    assert "end" not in group_calls  # NCCL would wait there


def test_gpus_that_cannot_talk_are_one_line_before_the_training(group_calls, monkeypatch, capsys):
    def fail(values):
        raise RuntimeError("NCCL error: Duplicate GPU detected\nlast error: ...")

    monkeypatch.setattr(dist, "all_reduce", fail)
    problem = "rank 1 of 2: the GPUs cannot talk by NCCL: NCCL error: Duplicate GPU detected;"
    with (
        pytest.raises(UserError, match=problem) as caught,
        distributed.process_group(SECOND_OF_TWO, torch.device("cuda", 1)),
    ):
        raise AssertionError("the training began")
    assert "\n" not in str(caught.value)
    assert "rank 1 of 2: trying NCCL, 120 s at most" in capsys.readouterr().err


def test_gpus_that_never_answer_end_the_process_in_time():
    code = (
        "import threading\n"
        "from langsteer.training.distributed import ended_after\n"
        "with ended_after(0.2, 'no answer'):\n"
        "    threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: no answer\n")


def test_a_training_longer_than_the_trial_is_left_alone():
    with distributed.ended_after(0.05, "would end the tests") as done:
        done()
        time.sleep(0.2)


def parallel_gradients(rank, folder, deterministic, compression, steps, first):
    """Of each step: a rank's gradients, with weights that are the same in each step."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    torch.manual_seed(0)
    widths = [(40, 30), (30, 50), (50, 20), (20, 1)]
    network = nn.Sequential(*(nn.Linear(*width) for width in widths))
    parallel = data_parallel(network, deterministic, compression)
    for step in range(first, steps):
        torch.manual_seed(100 * step + rank)
        parallel(torch.randn(8, 40)).square().sum().backward()
        if rank == 0:
            found = [weight.grad for weight in network.parameters()]
            torch.save(found, f"{folder}/step{step}")
        parallel.zero_grad(set_to_none=True)
    dist.barrier()  # none leaves while another still adds up
    del parallel  # it lives on in cycles, and may abort a rank when Python ends
    gc.collect()
    dist.destroy_process_group()


@pytest.fixture
def ranks_gradients(tmp_path):
    """Runs three gloo ranks and returns the gradients of the last step."""

    def run(name, deterministic, compression, steps, first=0):
        folder = tmp_path / name
        folder.mkdir()
        arguments = (str(folder), deterministic, compression, steps, first)
        torch.multiprocessing.spawn(parallel_gradients, arguments, nprocs=3)
        return torch.load(folder / f"step{steps - 1}", weights_only=True)

    return run


def test_deterministic_ranks_add_up_in_the_same_order_after_a_resume(ranks_gradients):
    """DDP fills its buckets anew after a process's first step, in another order."""
    whole = ranks_gradients("whole", True, "none", steps=3)
    resumed = ranks_gradients("resumed", True, "none", steps=3, first=2)
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)


def test_gradients_lie_in_the_buckets_they_are_sent_in(tmp_path):
    """Copies of them would take a gigabyte with dp3."""
    store = dist.FileStore(str(tmp_path / "meet"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        parallel = data_parallel(network)
        parallel(torch.ones(2, 3)).sum().backward()
    finally:
        dist.destroy_process_group()
    memory = {
        weight.grad.untyped_storage().data_ptr()
        for weight in network.parameters()
        if weight.grad is not None
    }
    assert len(memory) == 1


def test_compressed_gradients_are_the_averages_rounded(ranks_gradients):
    exact = ranks_gradients("exact", False, "none", steps=1)
    rounded = ranks_gradients("rounded", False, "bf16", steps=1)
    assert not all(torch.equal(one, other) for one, other in zip(exact, rounded, strict=True))
    for one, other in zip(exact, rounded, strict=True):
        torch.testing.assert_close(one, other, rtol=0.03, atol=float(one.abs().max()) * 0.02)
