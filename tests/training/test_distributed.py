"""Ranks, workers and micro-batches do not change what is learned."""

import pytest
import torch

COUNT_DDP = """
import gc
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
end = dist.destroy_process_group
def end_and_count(*arguments):
    kinds = [type(found) for found in gc.get_objects()]
    print("DDP at the end of its group:", kinds.count(DistributedDataParallel))
    end(*arguments)
dist.destroy_process_group = end_and_count
"""


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


def test_ddp_is_gone_when_its_group_ends(training):
    """Else gloo may abort a finished training when Python ends."""
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    process = training.start_patched(COUNT_DDP, "training.num_epochs=1", **group)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "DDP at the end of its group: 0" in output
