"""Troubles that only a cluster makes, each with what the job says of it."""

import re

import pytest
import torch

TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]
IMPATIENT = """
import langsteer.training.distributed
langsteer.training.distributed.RENDEZVOUS_SECONDS = 20
"""


def test_ranks_that_cannot_reach_each_other_say_which_network_they_tried(
    submit_training, patched_ranks
):
    impatient = patched_ranks(IMPATIENT)
    master = {"MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "23456"}
    unreachable = submit_training(TWO_NODES, **impatient, **master)
    # Each node's loopback leads to itself.
    wrong_interface = submit_training(TWO_NODES, **impatient, GLOO_SOCKET_IFNAME="lo")
    unreachable.wait("FAILED")
    wrong_interface.wait("FAILED")
    assert "rendezvous at 10.255.255.1:23456" in unreachable.log()
    assert "check that MASTER_ADDR is rank 0's host" in unreachable.log()
    assert "found rank 0 at node1:" in wrong_interface.log()
    assert "set GLOO_SOCKET_IFNAME (lo) and NCCL_SOCKET_IFNAME to" in wrong_interface.log()
    for job in (unreachable, wrong_interface):
        assert "Traceback" not in job.log()
        assert job.field("Restarts") == "0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_job_with_gpus_that_pytorch_cannot_use_does_not_train_on_the_cpu(submit_training):
    gpus = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2"]
    job = submit_training(gpus, "training.device=auto")
    job.wait("FAILED")
    assert "training.device=auto: no GPU (this job has 2 on the node)" in job.log()
    reason = "built without CUDA" if torch.version.cuda is None else "PyTorch finds none"
    assert reason in job.log()
    assert "Traceback" not in job.log()


def test_site_that_forbids_requeueing_is_told_how_to_go_on(
    cluster, submit_training, undisturbed, assert_same_run
):
    layout = ["--nodes=1", "--ntasks-per-node=2"]
    job = submit_training([*layout, "--no-requeue"])
    job.wait_for_step(40)
    cluster.command("scancel", "--signal=USR1", "--batch", job.number)
    job.wait("FAILED")
    said = re.search(r"could not be requeued; submit it again with '(\S+)' in front", job.log())
    assert said, job.log()
    again = submit_training(layout, said[1])
    again.wait("COMPLETED")
    saved = re.findall(r"saved step (\d+) to", job.log())
    assert saved == re.findall(r"resuming .*, step (\d+)", again.log())
    assert_same_run(job.experiment, undisturbed)


def test_missing_folder_for_logs_drops_the_output_until_the_dry_check_makes_it(
    cluster, project, submit_training, run_script
):
    (project / "logs").rmdir()
    layout = ["--nodes=1", "--ntasks-per-node=1"]
    silent = submit_training(layout, "training.num_epochs=1")
    silent.wait("FAILED")
    assert silent.log() == ""
    run_script("scripts/slurm_train_dp3.sh", "--test")
    assert (project / "logs").is_dir()
