"""However a job asks SLURM for tasks and GPUs, it is understood."""

import sys

import pytest

from langsteer.errors import UserError
from langsteer.training import preflight
from langsteer.training.slurm_request import Request

SCRIPT = ["--nodes=1", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=24:00:00"]


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["--gpus-per-node=h100:4"],
        ["--gres=gpu:h100:4"],
        ["--gres=gpu:4"],
        ["--gres=shard:2,gpu:h100:4(S:0-1)"],
        ["--gpus-per-task=1"],
        ["--gpus-per-task=h100:1"],
        ["--gpus=4"],
        ["--gpus=h100:4"],
        ["--ntasks=4"],
        ["--ntasks=4", "--gres=gpu:h100:4"],
    ],
)
def test_one_gpu_for_each_of_four_tasks_in_every_way_to_say_it(command):
    found = Request.parse(SCRIPT, command)
    assert (found.nodes, found.tasks_per_node, found.gpus_per_node) == (1, 4, 4)


def test_totals_are_shared_by_the_nodes():
    found = Request.parse(SCRIPT, ["--nodes=2", "--ntasks=8", "--gpus=a100:8"])
    assert (found.nodes, found.tasks_per_node, found.gpus_per_node) == (2, 4, 4)


def test_job_without_gpus_is_one():
    assert Request.parse(SCRIPT, ["--gpus-per-node=0", "--ntasks-per-node=1"]) == Request(1, 1, 0)


@pytest.mark.parametrize(("bound", "advised"), [([], True), (["--gpu-bind=none"], False)])
def test_way_out_of_isolation_is_advised(monkeypatch, capsys, bound, advised):
    monkeypatch.setattr(preflight, "check", lambda *arguments: [])
    monkeypatch.setattr(sys, "argv", [
        "preflight",
        *(f"--directive={line}" for line in SCRIPT),
        *(f"--option={line}" for line in ("--gpus-per-task=h100:1", *bound)),
    ])  # fmt: skip
    preflight.main()
    assert ("add --gpu-bind=none" in capsys.readouterr().out) is advised


def test_task_that_sees_its_own_gpu_alone_is_noticed():
    assert Request.parse(SCRIPT, ["--gpus-per-task=1"]).isolates
    assert not Request.parse(SCRIPT, ["--gpus-per-task=1", "--gpu-bind=none"]).isolates
    assert not Request.parse(SCRIPT).isolates


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--nodes=2", "--ntasks=3"], "--ntasks=3 does not divide among --nodes=2"),
        (["--ntasks-per-node=x"], "--ntasks-per-node=x: expected a whole number"),
    ],
)
def test_request_that_cannot_be_is_an_error(command, message):
    with pytest.raises(UserError, match=message):
        Request.parse(SCRIPT, command)
