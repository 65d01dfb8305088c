"""Ranks, workers and micro-batches do not change what is learned."""

import os
from functools import partial

import pytest
import torch
from torch import distributed as dist

from langsteer.errors import UserError
from langsteer.training.distributed import Vote, World, cores_per_rank, detect, first_of_nodelist


def assert_close_weights(one, other, tolerance=1e-6):
    for part in ("model", "ema"):
        for key, tensor in one[part].items():
            torch.testing.assert_close(tensor, other[part][key], rtol=0, atol=tolerance, msg=key)


def test_two_ranks_equal_one_process_with_twice_the_batch(training):
    training.run("training.experiment_name=one", "training.batch_size=16")
    output = training.run("training.experiment_name=two", "training.batch_size=8", ranks=2)
    assert "2 processes by torchrun" in output
    one, two = training.latest("one"), training.latest("two")
    assert one["progress"]["step"] == two["progress"]["step"]
    assert_close_weights(one, two)
    assert one["metrics"]["val_loss"] == pytest.approx(two["metrics"]["val_loss"], rel=1e-5)


def test_accumulation_equals_a_large_batch_with_the_remainder_of_an_epoch(training):
    training.here("training.experiment_name=large", "training.batch_size=32")
    training.here(
        "training.experiment_name=small",
        "training.batch_size=8",
        "training.gradient_accumulation_steps=4",
    )
    assert_close_weights(training.latest("large"), training.latest("small"))


def test_number_of_loader_workers_changes_nothing(training):
    training.here("training.experiment_name=none", "training.num_workers=0")
    training.here("training.experiment_name=some", "training.num_workers=1")
    assert_close_weights(training.latest("none"), training.latest("some"), tolerance=0)


STEP = {
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "20007",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}


def test_slurm_step_meets_at_the_first_host_of_its_nodes():
    assert detect(STEP) == World(1, 0, 2, "slurm", "gpu07", 20007)


def test_launch_address_is_used_where_there_is_no_node_list():
    environment = {key: value for key, value in STEP.items() if key != "SLURM_JOB_NODELIST"}
    assert detect(environment).master_addr == "10.0.0.1"


def test_master_address_and_port_override():
    world = detect({**STEP, "MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert (world.master_addr, world.master_port) == ("head", 1234)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        # the batch shell: rank 0 of 2, but no step
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "1"},
    ],
)
def test_shells_without_other_ranks_train_alone(environment):
    assert detect(environment) == World()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("a[3,5]-ib", "a3-ib"),
    ],
)
def test_first_of_a_node_list(nodes, first):
    assert first_of_nodelist(nodes) == first


def test_rank_outside_of_the_world_is_an_error():
    with pytest.raises(UserError, match="SLURM_PROCID=2"):
        detect({**STEP, "SLURM_PROCID": "2"})


def test_group_of_one_trains_as_one_process_does(training):
    """As torchrun with one process asks for; so NCCL and DDP can be tried on one GPU."""
    training.here("training.experiment_name=alone", "training.num_epochs=1")
    output = training.run(
        "training.experiment_name=group",
        "training.num_epochs=1",
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
    )
    assert "a group of 1 process by torchrun" in output
    assert_close_weights(training.latest("alone"), training.latest("group"), tolerance=0)


def test_ranks_of_torchrun_share_the_cores_of_their_slurm_task(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    assert cores_per_rank({"SLURM_CPUS_PER_TASK": "32", "LOCAL_WORLD_SIZE": "4"}) == 8
    assert cores_per_rank({"SLURM_CPUS_PER_TASK": "32"}) == 32
    assert cores_per_rank({"LOCAL_WORLD_SIZE": "4"}) == 16


class Ranks:
    """Ranks that vote one after the other on each step, by a common clock."""

    def __init__(self, monkeypatch, seconds_per_step):
        self.now, self.seconds, self.ballots = 0.0, seconds_per_step, []
        self.rounds = 0
        monkeypatch.setattr(dist, "all_reduce", self._all_reduce)
        worlds = [World(rank, 0, len(seconds_per_step), "slurm") for rank in (0, 1)]
        self.clocks = [0.0 for _ in seconds_per_step]
        self.votes = [Vote(world, partial(self._time, rank)) for rank, world in enumerate(worlds)]

    def _time(self, rank):
        return self.clocks[rank]

    def _all_reduce(self, ballot, operation):
        assert operation == dist.ReduceOp.MAX
        self.ballots.append(ballot.clone())
        if self.other is not None:
            ballot.copy_(torch.maximum(ballot, self.other))

    def step(self, flags):
        """One step of both, and whether each was told to stop."""
        for rank, seconds in enumerate(self.seconds):
            self.clocks[rank] += seconds
        self.ballots, answers = [], []
        # What rank 1 will say is not known when rank 0 asks: ask both without each other first.
        states = [dict(vote.__dict__) for vote in self.votes]
        self.other = None
        for vote, flag in zip(self.votes, flags, strict=True):
            vote(flag)
        assert len(self.ballots) in (0, 2), "the ranks asked after different steps"
        if self.ballots:
            self.rounds += 1
            self.other = torch.maximum(*self.ballots)
        for vote, flag, state in zip(self.votes, flags, states, strict=True):
            vote.__dict__.update(state)
            answers.append(vote(flag))
        return answers


def test_ranks_ask_each_other_twice_a_second_and_after_the_same_steps(monkeypatch):
    ranks = Ranks(monkeypatch, [0.02, 0.05])
    for _ in range(101):
        assert ranks.step([False, False]) == [False, False]
    assert ranks.rounds == 11  # after the first step, and then after every ten
    answers = [ranks.step([False, True]) for _ in range(10)]
    assert [True, True] in answers
    assert all(one == other for one, other in answers)


def test_single_process_obeys_after_the_very_step():
    assert Vote(World())(True)
