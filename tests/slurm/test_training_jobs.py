"""Training on a real SLURM: the same run as without it, whatever interrupts it."""

import os
import re
import signal

import pytest

SHORT = ["training=dp3_debug", "policy=simple_dp3", "policy.down_dims=[16,32]"]
SHORT += ["training.num_epochs=1", "training.batch_size=26", "training.val_action_samples=1"]


@pytest.mark.parametrize(
    ("nodes", "tasks", "meets_at"),
    [(2, 1, "node1"), (1, 2, "127.0.0.1")],
    ids=["2 nodes", "2 tasks on a node"],
)
def test_tasks_of_slurm_train_as_torchrun_does(
    submit_training, undisturbed, assert_same_run, nodes, tasks, meets_at
):
    job = submit_training([f"--nodes={nodes}", f"--ntasks-per-node={tasks}"])
    job.wait("COMPLETED")
    assert f"2 processes by slurm, rendezvous at {meets_at}:" in job.log()
    assert_same_run(job.experiment, undisturbed)
    assert job.field("Restarts") == "0"


def saved_and_resumed(log: str) -> list[tuple[int, int]]:
    """Pairs of the step at which a run was saved and the one at which it went on."""
    saved = [int(step) for step in re.findall(r"saved step (\d+) to", log)]
    resumed = [int(step) for step in re.findall(r"resuming .*, step (\d+)", log)]
    return list(zip(saved, resumed, strict=True))


def test_signals_and_preemption_change_no_run(
    cluster, submit_training, undisturbed, assert_same_run, project
):
    job = submit_training(["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=2", "-w", "node1"])
    job.wait_for_step(40)
    cluster.command("scancel", "--signal=USR1", "--batch", job.number)
    job.wait_for_restart(1)
    job.wait_for_step(120)
    # What a site sends that knows nothing of --signal: to the ranks alone.
    cluster.command("scancel", "--signal=TERM", job.number)
    job.wait_for_restart(2)
    job.wait_for_step(200)
    urgent = "--partition=urgent", "--nodelist=node1", "--cpus-per-task=4", "--wrap=sleep 1"
    cluster.command("sbatch", "--output=/dev/null", *urgent)
    job.wait_for_restart(3)
    job.wait("COMPLETED")
    assert job.field("Restarts") == "3"
    steps = saved_and_resumed(job.log())
    assert len(steps) == 3
    assert all(saved == resumed for saved, resumed in steps), steps
    assert_same_run(job.experiment, undisturbed)


BREAKS_ON_ALARM = """
import signal
def broken(number, frame):
    raise RuntimeError("a fault of ours")
is_second = os.environ["SLURM_PROCID"] == "1"
signal.signal(signal.SIGALRM, broken if is_second else signal.SIG_IGN)
"""


def test_crashed_rank_ends_the_job_with_its_traceback(cluster, submit_training, patched_ranks):
    layout = ["--nodes=2", "--ntasks-per-node=1"]
    faulty = patched_ranks(BREAKS_ON_ALARM)
    job = submit_training(layout, "training.num_epochs=9999", **faulty)
    job.wait_for_step(20)
    cluster.command("scancel", "--signal=ALRM", f"{job.number}.0")
    job.wait("FAILED", 60)
    assert "RuntimeError: a fault of ours" in job.log()
    assert "Traceback" in job.log()
    assert "not requeued" in job.log()
    assert job.field("Restarts") == "0"


def test_cancelled_job_saves_and_stays_cancelled(cluster, submit_training):
    job = submit_training(["--nodes=1", "--ntasks-per-node=2"], "training.num_epochs=9999")
    job.wait_for_step(20)
    cluster.command("scancel", job.number)
    job.wait("CANCELLED")
    assert "saved step" in job.log()
    assert "requeueing" not in job.log()


def test_batch_shell_waits_for_no_ranks(cluster, project):
    train = " ".join(["python scripts/train_dp3.py", *SHORT])
    sbatch = ["sbatch", "--wait", "--ntasks=2", "--output=logs/shell.out", f"--wrap={train}"]
    cluster.command(*sbatch, folder=project)
    assert "1 process, cpu" in (project / "logs" / "shell.out").read_text()


def test_time_limit_changes_no_run(cluster, submit_training, undisturbed, assert_same_run):
    # The limit is a minute, the least that SLURM knows; it looks at its clock every half a minute.
    layout = ["--nodes=2", "--ntasks-per-node=1", "--time=1", "--signal=B:USR1@25"]
    job = submit_training(layout)
    job.wait_for_step(40)
    ranks = [pid for rank in (0, 1) for pid in job.processes(rank)]
    for pid in ranks:  # lest they finish before that
        os.kill(pid, signal.SIGSTOP)
    job.wait_for_log("SLURM sent SIGUSR1")
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    job.wait_for_restart(1)
    # Once is enough; a busy machine might need several more minutes.
    cluster.command("scontrol", "update", f"jobid={job.number}", "timelimit=30")
    job.wait("COMPLETED")
    assert job.field("Restarts") == "1"
    steps = saved_and_resumed(job.log())
    assert len(steps) == 1
    assert all(saved == resumed for saved, resumed in steps), steps
    assert_same_run(job.experiment, undisturbed)


def test_node_that_goes_down_changes_no_run(cluster, submit_training, undisturbed, assert_same_run):
    job = submit_training(["--nodes=2", "--ntasks-per-node=1"])
    job.wait_for_step(200)
    cluster.set_network("node2", "down")  # rank 0 hears nothing more, and so cannot save either
    # SLURM would notice after SlurmdTimeout; it takes the node back when its daemon registers.
    cluster.command("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    job.wait_for_restart(1)
    job.wait_for_end_of_rank(0)
    cluster.set_network("node2", "up")
    job.wait("COMPLETED")
    # The last checkpoint was that of epoch 20, of 7 steps each.
    assert re.findall(r"resuming .*, step (\d+)", job.log()) == ["140"]
    assert_same_run(job.experiment, undisturbed)


def test_interrupted_job_goes_on_in_the_same_run_of_wandb(
    cluster, submit_training, undisturbed, assert_same_run
):
    pytest.importorskip("wandb")
    keys = ["training.wandb.enabled=true", "training.wandb.mode=offline"]
    job = submit_training(["--nodes=1", "--ntasks-per-node=2"], *keys, WANDB_MODE="offline")
    job.wait_for_step(40)
    cluster.command("scancel", "--signal=TERM", job.number)  # ends the service of W&B, too
    job.wait_for_restart(1)
    job.wait("COMPLETED")
    assert_same_run(job.experiment, undisturbed)
    runs = [path.name.split("-")[-1] for path in (job.experiment / "wandb").glob("offline-run-*")]
    assert runs == [(job.experiment / "wandb_run_id.txt").read_text().strip()] * 2
