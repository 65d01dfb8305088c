"""Ranks, workers and micro-batches do not change what is learned."""

import pytest
import torch

from langsteer.errors import UserError
from langsteer.training.distributed import World, detect, first_of_nodelist


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
