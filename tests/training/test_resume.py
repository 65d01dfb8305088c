"""An interrupted run is the run that was never stopped."""

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from langsteer.training import dp3_trainer, validation
from langsteer.training.run_state import RunState
from langsteer.training.signals import EXIT_PREEMPTED

TIMES = {"samples_per_second"}


def records(training, experiment):
    lines = (training.folder / experiment / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in TIMES}
        for line in lines
    ]


def assert_same_state(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same_state(first, second)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_same_run(training, one, other):
    first, second = training.latest(one), training.latest(other)
    for part in ("model", "ema", "optimizer", "scheduler", "progress", "rng", "metrics"):
        assert_same_state(first[part], second[part])
    assert records(training, one) == records(training, other)


def interrupt(process, number, after_lines):
    """Send a signal once the process has printed so many lines."""
    for _ in range(after_lines):
        process.stdout.readline()
    time.sleep(random.Random(after_lines).uniform(0, 0.3))
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    return rest


def test_killed_and_resumed_run_equals_uninterrupted_run(training):
    training.run("training.experiment_name=whole")
    resume = ["training.experiment_name=killed", "training.resume=auto"]
    for lines in (6, 7, 8):  # after the first, the second epoch's line and so on
        interrupt(training.start(*resume), signal.SIGKILL, lines)
    training.run(*resume)
    assert_same_run(training, "whole", "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_run_asked_to_stop_saves_mid_epoch_and_goes_on_there(training, number):
    overrides = ["training.num_epochs=40", "training.checkpoint_every=40", "training.val_every=20"]
    training.run("training.experiment_name=whole", *overrides)
    stopped = ["training.experiment_name=stopped", *overrides]
    process = training.start(*stopped)
    output = interrupt(process, number, 8)
    assert process.returncode == EXIT_PREEMPTED, output
    assert f"{signal.Signals(number).name}: finishing step" in output
    assert "Ctrl-C" not in output
    assert training.latest("stopped")["progress"]["step"] < 40 * 11
    training.run(*stopped, "training.resume=true")
    assert_same_run(training, "whole", "stopped")


def test_ctrl_c_says_at_once_what_happens_and_what_a_second_one_loses(training):
    overrides = ["training.num_epochs=400", "training.experiment_name=run"]
    output = interrupt(training.start(*overrides), signal.SIGINT, 8)
    assert "SIGINT: finishing step" in output
    assert "then saving" in output
    assert "press Ctrl-C again to leave without saving and lose" in output
    assert output.index("then saving") < output.index("SIGINT: saved step")


WRITES_FOR_EVER = """
import torch
from langsteer.training import checkpoint_util

def write(payload, path):
    with path.with_name(f".{path.name}.1.tmp").open("wb") as file:
        while True:
            torch.save(payload, file)
            file.seek(0)

checkpoint_util._write = write
"""


def test_second_ctrl_c_leaves_at_once_and_keeps_no_part_of_a_checkpoint(training):
    process = training.start_patched(
        WRITES_FOR_EVER, "training.num_epochs=400", "training.experiment_name=run"
    )
    folder = training.folder / "run"
    while not list(folder.glob("*.tmp")):
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output[-12:]) == (130, "interrupted\n")
    assert not list(folder.glob("*.tmp"))


@pytest.fixture
def told_at_its_start(monkeypatch):
    """A function: sends this process a signal when the next training builds its trainer."""

    def arrange(number):
        def build(*arguments):
            os.kill(os.getpid(), number)
            return RunState(*arguments)

        monkeypatch.setattr(dp3_trainer, "RunState", build)

    return arrange


def test_ctrl_c_before_the_training_began_is_obeyed_at_once(training, told_at_its_start):
    told_at_its_start(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.here("training.experiment_name=run")
    assert not list(training.folder.glob("run/*.ckpt"))


def test_sigterm_before_the_training_began_is_answered_and_a_step_saved(
    training, told_at_its_start, capfd
):
    told_at_its_start(signal.SIGTERM)
    training.here("training.experiment_name=run", status=EXIT_PREEMPTED)
    assert "SIGTERM: the training is still starting" in capfd.readouterr().err
    assert training.latest("run")["progress"]["step"] == 1


def test_run_asked_to_stop_in_its_validation_leaves_it_and_validates_anew(
    training, monkeypatch, capfd
):
    training.here("training.experiment_name=whole")
    compute_loss = validation._block_loss

    def told_meanwhile(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return compute_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "_block_loss", told_meanwhile)
        training.here("training.experiment_name=stopped", status=EXIT_PREEMPTED)
    assert "SIGUSR1: finishing after step 11, then saving" in capfd.readouterr().err
    progress = training.latest("stopped")["progress"]
    assert (progress["epoch"], progress["step_in_epoch"]) == (0, 11)
    assert not any("val_loss" in record for record in records(training, "stopped"))
    training.here("training.experiment_name=stopped", "training.resume=true")
    assert_same_run(training, "whole", "stopped")


def test_interrupt_while_pytorch_is_imported_is_no_traceback(training):
    process = training.start("training.experiment_name=run")
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "interrupted\n")


def test_finished_run_says_that_nothing_is_left(training):
    training.here("training.experiment_name=run")
    before = training.latest("run")
    output = training.here("training.experiment_name=run", "training.resume=true")
    assert "all 3 epochs are done" in output
    assert_same_state(before["model"], training.latest("run")["model"])


def test_resume_without_a_name_finds_the_newest_run_and_says_which(training):
    training.here("training.experiment_name=dp3_debug_20200101", "training.num_epochs=1")
    output = training.here("training.resume=true", "training.num_epochs=2")
    assert "dp3_debug_20200101/latest.ckpt" in output
    assert training.latest("dp3_debug_20200101")["progress"]["epoch"] == 2


def test_resume_from_a_named_checkpoint(training):
    training.here("training.experiment_name=run")
    path = training.folder / "run" / "epoch_0001.ckpt"
    output = training.here("training.resume=true", f"training.resume_checkpoint_path={path}")
    assert "epoch_0001.ckpt at epoch 1" in output


def test_requeued_run_from_a_named_checkpoint_goes_on_with_its_own(training):
    """A job's script asks for ``auto``, also where its user named a checkpoint to begin with."""
    training.here("training.experiment_name=whole")
    path = training.folder / "whole" / "epoch_0001.ckpt"
    command = [
        "training.experiment_name=job",
        f"training.resume_checkpoint_path={path}",
        "training.resume=auto",
    ]
    assert "whole/epoch_0001.ckpt at epoch 1" in training.here(*command)
    assert "job/latest.ckpt at epoch 3" in training.here(*command)
    assert_same_state(training.latest("whole")["model"], training.latest("job")["model"])


def test_run_from_anothers_checkpoint_keeps_no_record_twice(training):
    training.here("training.experiment_name=whole")
    path = training.folder / "whole" / "epoch_0001.ckpt"
    named = ["training.experiment_name=job", "training.resume=true"]
    training.here(*named, f"training.resume_checkpoint_path={path}")
    once = records(training, "job")
    for name in ("epoch_0003", "latest", "best"):  # as if it had been killed in its last epoch
        (training.folder / "job" / f"{name}.ckpt").unlink(missing_ok=True)
    assert "job/epoch_0002.ckpt at epoch 2" in training.here(*named)
    assert records(training, "job") == once


def test_damaged_latest_falls_back_to_the_checkpoint_before_and_says_so(training):
    training.here("training.experiment_name=run", "training.num_epochs=2")
    folder = training.folder / "run"
    (folder / "latest.ckpt").unlink()
    (folder / "latest.ckpt").write_bytes((folder / "epoch_0002.ckpt").read_bytes()[:1000])
    output = training.here("training.experiment_name=run", "training.resume=true")
    assert "latest.ckpt: damaged" in output
    assert "epoch_0002.ckpt at epoch 2" in output


def test_resume_with_a_config_that_does_not_fit_lists_the_differences(training):
    training.here("training.experiment_name=run", "training.num_epochs=1")
    output = training.here(
        "training.experiment_name=run",
        "training.resume=true",
        "training.batch_size=4",
        "training.learning_rate=0.01",
        status=2,
    )
    assert "data.effective_batch_size: 8 in the checkpoint, 4 now" in output
    assert "training.learning_rate: 0.0001 in the checkpoint, 0.01 now" in output


def test_nothing_to_resume_is_an_error(training):
    output = training.here("training.resume=true", status=2)
    assert "dp3_debug_<date>: no checkpoint to resume from" in output


def test_a_new_run_never_mixes_with_an_old_one_of_the_same_name(training):
    training.here("training.experiment_name=run", "training.num_epochs=1")
    output = training.here("training.experiment_name=run", "training.num_epochs=1", status=2)
    assert "training.resume=true" in output


def _damage_moments(payload):
    payload["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)


def _damage_weights(payload):
    next(iter(payload["model"].values())).view(-1)[0] = torch.nan


DAMAGES = {
    r"the tensor optimizer\.state\[0\]\.exp_avg has shape \(3,\)": _damage_moments,
    "the tensor .* holds numbers that are not finite": _damage_weights,
    r"progress\.step='x'": lambda payload: payload["progress"].update(step="x"),
    "its optimizer is not that": lambda payload: payload.update(optimizer=[1]),
    "its random state": lambda payload: payload["rng"].update(torch=torch.zeros(3)),
}


def test_a_damaged_part_of_the_checkpoint_is_named_and_nothing_is_trained(training):
    training.here("training.experiment_name=a", "training.num_epochs=1")
    path = training.folder / "a" / "latest.ckpt"
    for message, damage in DAMAGES.items():
        payload = training.latest("a")
        damage(payload)
        damaged = path.with_name("damaged.ckpt")
        torch.save(payload, damaged)
        said = training.here(
            "training.experiment_name=b",
            "training.resume=true",
            f"training.resume_checkpoint_path={damaged}",
            status=2,
        )
        assert re.search(message, said), said
        assert "damaged.ckpt" in said


@pytest.mark.parametrize("resume", ["false", "auto"])
def test_a_second_training_in_the_same_folder_says_so_and_touches_nothing(
    training, wait_for, resume
):
    name = ["training.experiment_name=a", f"training.resume={resume}"]
    first = training.start(*name, "training.num_epochs=500")
    wait_for(first, "experiment")  # it holds the folder, and has no checkpoint yet
    said = training.here(*name, status=2)
    assert "another training is at work here" in said or "holds checkpoints" in said
    first.terminate()
    assert "saved step" in first.communicate(timeout=120)[0]
    assert first.returncode == EXIT_PREEMPTED
    assert records(training, "a")


@pytest.mark.parametrize("resume", ["false", "auto"])
def test_of_two_trainings_started_at_once_one_wins_and_the_other_says_so(
    training, wait_for, resume
):
    name = ["training.experiment_name=a", f"training.resume={resume}", "training.num_epochs=500"]
    both = [training.start(*name) for _ in range(2)]
    while all(one.poll() is None for one in both):
        time.sleep(0.2)
    winner, loser = sorted(both, key=lambda one: one.poll() is not None)
    said, _ = loser.communicate()
    assert loser.returncode == 2, said
    assert "another training is at work here" in said or "holds checkpoints" in said
    wait_for(winner, "experiment")
    winner.terminate()
    assert "saved step" in winner.communicate(timeout=120)[0]
    assert winner.returncode == EXIT_PREEMPTED


def test_records_lost_with_the_power_are_said(training):
    training.here("training.experiment_name=a", "training.num_epochs=1")
    metrics = training.folder / "a" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-2]))
    said = training.here("training.experiment_name=a", "training.resume=true")
    assert "records up to the checkpoint are there" in said
