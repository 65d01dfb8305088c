"""Each trouble of the guide ends soon, with a message that says what to do."""

import re
import shutil
import signal
import socket
from collections import namedtuple

import numpy as np
import pytest
import torch

from langsteer.configuration import compose
from langsteer.data.zarr_arrays import open_array
from langsteer.errors import UserError
from langsteer.training import run_state
from langsteer.training.config import TrainingConfig
from langsteer.training.pytorch_util import explained_out_of_memory
from langsteer.training.signals import EXIT_PREEMPTED

NAMED = "training.experiment_name=run"
SOON = "import langsteer.training.distributed as d; d.RENDEZVOUS_SECONDS = 3"


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test where a model is built."""

    def build(*arguments):
        raise AssertionError("a model was built")

    monkeypatch.setattr(run_state, "DP3", build)


def outcome(process, seconds=60):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


# Data


def test_missing_zarr_path_is_an_error_before_the_model_is_built(training, no_model, monkeypatch):
    monkeypatch.delenv("CALVIN_ZARR_PATH", raising=False)
    process = training.start(CALVIN_ZARR_PATH="/nowhere/calvin.zarr")
    assert outcome(process) == (
        2,
        "error: /nowhere/calvin.zarr: no such store; convert a dataset first (langsteer-convert)\n",
    )
    environment = {k: v for k, v in training.environment().items() if k != "CALVIN_ZARR_PATH"}
    training.environment = lambda **extra: environment
    status, output = outcome(training.start())
    assert status == 2
    assert "set CALVIN_ZARR_PATH" in output


def test_foreign_zarr_is_an_error_before_the_model_is_built(training, no_model, tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w").create_array(
        "data", shape=(3, 2), dtype="f4"
    )
    output = training.here(f"training.dataset.zarr_path={tmp_path / 'foreign.zarr'}", status=2)
    assert "foreign.zarr: not a store of LangSteer" in output


def test_fewer_windows_than_a_batch_is_an_error_before_the_model_is_built(training, no_model):
    output = training.here("training.batch_size=84", status=2)
    assert "83 training windows, fewer than training.batch_size=84" in output
    assert "set training.batch_size to 83 or less" in output


def test_batch_of_exactly_all_windows_trains(training):
    training.here("training.batch_size=83", NAMED)
    assert training.latest("run")["progress"]["step"] == 3


def test_store_with_a_number_that_is_none_is_an_error_before_the_model_is_built(
    training_on, store_factory, tmp_path, no_model
):
    path = store_factory(tmp_path / "s.zarr", [30, 30], ["training", "validation"])
    open_array(path, "action", write=True)[7, 2].write(np.nan).result()
    output = training_on(path, tmp_path).here(status=2)
    assert "data/action: 1 rows are not finite, the first is row 7" in output


def test_empty_validation_is_said_and_training_goes_on(training_on, store_factory, tmp_path):
    path = store_factory(tmp_path / "s.zarr", [40], ["training"])
    training = training_on(path, tmp_path)
    output = training.here(NAMED, "training.top_k=2")
    assert "no validation episodes" in output
    names = sorted(path.name for path in (tmp_path / "run").glob("epoch_*"))
    assert names == ["epoch_0002.ckpt", "epoch_0003.ckpt"]


def test_checkpoint_path_without_resume_is_an_error_not_a_new_run(training, no_model):
    output = training.here("training.resume_checkpoint_path=a.ckpt", status=2)
    assert "set training.resume=true as well" in output


def test_folder_that_cannot_be_written_is_an_error(training, tmp_path):
    (tmp_path / "file").write_text("")
    for name in (NAMED, "training.experiment_name=null"):
        output = training.here(f"training.checkpoint_dir={tmp_path / 'file'}", name, status=2)
        assert "set training.checkpoint_dir" in output


def test_disk_too_full_for_the_checkpoints_is_an_error(training, no_model, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    output = training.here(NAMED, status=2)
    assert re.search(r"0.001 MB free, 5 checkpoints of .* MB need .* MB; make room", output)


def test_start_says_what_the_run_will_be_and_need(training):
    output = training.here(NAMED, "training.warmup_steps=500", "training.num_epochs=1")
    assert re.search(r"disk: .* free; a checkpoint is .* MB, all of them need up to .* MB", output)
    assert "1 epochs, learning rate 0.0001 after 500 warm-up steps, EMA, W&B off" in output
    assert "warning: training.warmup_steps=500: the run has 11 steps" in output


def test_loss_that_is_not_finite_never_reaches_the_weights(training_on, store_factory, tmp_path):
    path = store_factory(tmp_path / "s.zarr", [40, 30], ["training", "validation"])
    training = training_on(path, tmp_path)
    training.here(NAMED, "training.num_epochs=1")
    cloud = open_array(path, "point_cloud", write=True)
    cloud[20, 3, :3].write(np.full(3, np.nan, np.float32)).result()
    more = [NAMED, "training.resume=true", "training.num_epochs=2"]
    output = training.here(*more, status=2)
    assert "not finite near step" in output
    assert "training.learning_rate" in output
    content = training.latest("run")
    assert content["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in content["model"].values())
    cloud[20, 3, :3].write(np.zeros(3, np.float32)).result()
    training.here(*more)
    assert training.latest("run")["progress"]["epoch"] == 2


# Memory


def test_out_of_memory_names_the_batch_size_and_what_to_try(training):
    limit = (
        "import resource, re, pathlib, langsteer.training.dp3_trainer as t\n"
        "used = int(re.search(r'VmSize:\\s+(\\d+)', "
        "pathlib.Path('/proc/self/status').read_text())[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)\n"
    )
    # One checkpoint is kept, so the disk need not hold several of a gigabyte.
    large = ["policy=dp3", "policy.down_dims=[256,512,1024]", "training.top_k=1"]
    process = training.start_patched(limit, *large)
    status, output = outcome(process)
    assert status == 2, output
    assert "out of memory with training.batch_size=8" in output
    assert "training.batch_size=4 training.gradient_accumulation_steps=2" in output
    assert "training.num_workers" in output


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_that_are_out_of_memory_are_understood(words):
    with (
        pytest.raises(UserError, match=r"out of memory with training\.batch_size=128"),
        explained_out_of_memory(TrainingConfig.from_dict(compose("train")["training"])),
    ):
        raise RuntimeError(words)


@pytest.mark.parametrize(
    "words",
    [
        "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...",
        "unable to mmap 8 bytes from file </torch_7_1>: Cannot allocate memory (12)",
    ],
)
def test_too_little_shared_memory_is_not_blamed_on_the_batch_size(words):
    with (
        pytest.raises(UserError, match=r"too little shared memory.*\ntry training\.num_workers=1"),
        explained_out_of_memory(TrainingConfig.from_dict(compose("train")["training"])),
    ):
        raise RuntimeError(words)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGKILL", "is killed by signal: Killed; .* for want of memory"),
        ("SIGSEGV", "is killed by signal: Segmentation fault; .* a fault of a library"),
    ],
)
def test_a_dead_loader_worker_is_told_with_what_ended_it(training, name, said):
    patch = (
        "import os, signal, langsteer.training.calvin_dataset as c\n"
        f"def die(self, micro, seed): os.kill(os.getpid(), signal.{name})\n"
        "c.CalvinData.train_batch = die\n"
        "os.sched_getaffinity = lambda pid: {0, 1}\n"
    )
    status, output = outcome(training.start_patched(patch, "training.num_workers=1"))
    assert status == 2, output
    assert re.search(f"error: a loader worker {said}", output), output
    assert "Traceback" not in output
    assert "batch_size" not in output


# Ranks


def test_ranks_of_a_slurm_step_train_as_one_process(training):
    training.here("training.experiment_name=one", "training.batch_size=16")
    first, second = training.start_ranks("training.experiment_name=two")
    (status, output), (other_status, other_output) = outcome(first), outcome(second)
    assert (status, other_status) == (0, 0), output + other_output
    assert "2 processes by slurm, rendezvous at 127.0.0.1:" in output
    one, two = training.latest("one"), training.latest("two")
    for key, tensor in one["model"].items():
        torch.testing.assert_close(tensor, two["model"][key], rtol=0, atol=1e-6)
    # Rank 0 alone shows progress and writes.
    assert "epoch 3/3" in output
    assert "epoch" not in other_output
    assert "training:" not in other_output


def test_signal_to_one_rank_stops_all_at_one_step_and_the_run_goes_on_there(training, wait_for):
    overrides = ["training.num_epochs=30", "training.checkpoint_every=30", "training.val_every=30"]
    whole = training.start_ranks("training.experiment_name=whole", *overrides)
    assert [outcome(process)[0] for process in whole] == [0, 0]
    stopped = ["training.experiment_name=stopped", *overrides]
    first, second = training.start_ranks(*stopped)
    wait_for(first, "epoch 2/")
    second.send_signal(signal.SIGUSR1)
    second.send_signal(signal.SIGTERM)  # a second signal changes nothing
    # Rank 0 answers for all: srun would end it, were another's status not 0.
    assert [outcome(first)[0], outcome(second)[0]] == [EXIT_PREEMPTED, 0]
    step = training.latest("stopped")["progress"]["step"]
    assert 12 <= step < 180
    first, second = training.start_ranks(*stopped, "training.resume=true")
    status, output = outcome(first)
    assert (status, outcome(second)[0]) == (0, 0), output
    assert f"step {step}" in output
    one, other = training.latest("whole"), training.latest("stopped")
    for part in ("model", "ema"):
        for key, tensor in one[part].items():
            assert torch.equal(tensor, other[part][key]), key
    assert one["metrics"] == other["metrics"]


def test_failing_rank_takes_the_others_down(training, wait_for):
    first, second = training.start_ranks("training.num_epochs=500", NAMED)
    wait_for(first, "epoch 2/")
    second.kill()
    second.wait()
    status, _ = outcome(first)
    assert status not in (0, EXIT_PREEMPTED)


def test_error_of_rank_0_takes_the_others_down(training):
    first, second = training.start_ranks("training.resume=true", NAMED)  # nothing to resume
    status, output = outcome(first)
    assert status == 2
    assert "no checkpoint to resume from" in output
    assert outcome(second)[0] != 0


def test_missing_rank_is_named_with_address_and_port(training, unused_port):
    process = training.start_patched(SOON, **training.slurm_task(0, 2, unused_port))
    status, output = outcome(process)
    assert status == 2
    assert f"rendezvous at 127.0.0.1:{unused_port}: rank 1 of 2 did not come" in output


def test_ranks_that_came_all_end_where_one_is_missing(training, unused_port):
    there = [
        training.start_patched(SOON, **training.slurm_task(rank, 3, unused_port)) for rank in (0, 2)
    ]
    for process in there:
        status, output = outcome(process)
        assert status == 2, output
        assert f"127.0.0.1:{unused_port}" in output


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_unreachable_master_is_named_with_port_and_rank(training, unused_port, host):
    task = training.slurm_task(1, 2, unused_port) | {"MASTER_ADDR": host}
    status, output = outcome(training.start_patched(SOON, **task))
    assert status == 2, output
    assert f"rendezvous at {host}:{unused_port}: rank 1 of 2: no answer from rank 0" in output
    assert "MASTER_ADDR" in output


def test_port_that_is_taken_is_named(training):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, output = outcome(training.start_patched(SOON, **training.slurm_task(0, 2, port)))
    assert status == 2, output
    assert f"127.0.0.1:{port}: rank 0 of 2: cannot listen there" in output
