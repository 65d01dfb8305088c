"""The launcher's variables say which ranks there are, and where they meet."""

import os

import pytest

from langsteer.errors import UserError
from langsteer.training.world import World, cores_per_rank, detect, first_of_nodelist

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


def test_ranks_of_torchrun_share_the_cores_of_their_slurm_task(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    assert cores_per_rank({"SLURM_CPUS_PER_TASK": "32", "LOCAL_WORLD_SIZE": "4"}) == 8
    assert cores_per_rank({"SLURM_CPUS_PER_TASK": "32"}) == 32
    assert cores_per_rank({"LOCAL_WORLD_SIZE": "4"}) == 16
