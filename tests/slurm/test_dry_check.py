"""``--test``: what would run, and what a queue would otherwise find out hours later."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from langsteer.configuration import compose
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.training.config import RunConfig
from langsteer.training.disk import checkpoint_bytes
from langsteer.training.preflight import check

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "scripts/slurm_train_dp3.sh"
CONVERT = "scripts/slurm_convert_calvin.sh"
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--"]
TRAINING = ["training=dp3_debug", "policy=simple_dp3", "training.batch_size=4"]


def test_dry_check_says_what_would_run(cluster, run_script):
    done = run_script(TRAIN, "--test", *TWO_NODES, *TRAINING, SLURM_CONF=str(cluster.configuration))
    assert done.returncode == 0, done.stderr
    assert "2 processes: 2 nodes of 1 tasks and no GPU" in done.stdout
    assert "effective batch size 8 = 4 x 2 processes" in done.stdout
    assert "SLURM: Job" in done.stdout
    assert "nodes node[1-2] in partition main" in done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CALVIN_ZARR_PATH": "no/such.zarr"}, "no/such.zarr"),
        ({"VENV": "no/venv"}, "no/venv: no virtual environment there"),
    ],
)
def test_dry_check_finds_it_on_the_login_node(run_script, environment, message):
    done = run_script(TRAIN, "--test", *TWO_NODES, *TRAINING, **environment)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("training.top_k=999999999", r"checkpoints of .* need .*; make room"),
        ("training.bach_size=4", "did you mean training.batch_size?"),
        ("training.batch_size=4000", "set training.batch_size to"),
        ("training.checkpoint_dir=README.md/x", "cannot be written; set training.checkpoint_dir"),
        ("training.device=cuda", "the job asks for no GPU"),
    ],
)
def test_dry_check_finds_what_training_would(converted, key, message, project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "README.md").touch()
    store = f"training.dataset.zarr_path={converted}"
    with pytest.raises(UserError, match=message):
        check(RunConfig.from_dict(compose("train", [*TRAINING, store, key])), nodes=2)


def test_checkpoint_is_as_large_as_foretold(undisturbed, tiny_overrides):
    policy = DP3Config.from_dict(compose("train", tiny_overrides)["policy"])
    size = (undisturbed / "latest.ckpt").stat().st_size
    assert 0.8 * size < checkpoint_bytes(policy, use_ema=True) < size


def test_dry_check_finds_an_environment_without_our_requirements(run_script, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not for this machine')")
    done = run_script(TRAIN, "--test", *TWO_NODES, *TRAINING, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "cannot import langsteer.training.dp3_trainer: ImportError: torch is not" in done.stderr


def test_dry_check_finds_directives_that_the_cluster_refuses(cluster, run_script):
    options = ["--partition=gone", *TWO_NODES]
    conf = str(cluster.configuration)
    done = run_script(TRAIN, "--test", *options, *TRAINING, SLURM_CONF=conf)
    assert done.returncode == 2
    assert "invalid partition specified: gone" in done.stderr
    assert "Check partition, account, time and GPUs" in done.stderr


def test_dry_check_finds_gpus_without_tasks_of_their_own(run_script):
    done = run_script(TRAIN, "--test", "--ntasks-per-node=1", "--gpus-per-node=4", "--", *TRAINING)
    assert done.returncode == 2
    assert "one process per GPU is started" in done.stderr


def test_dry_check_of_a_conversion_writes_nothing(
    cluster, run_script, calvin_folder, converted, project
):
    done = run_script(
        CONVERT,
        *("--test", "--array=0-2", "--cpus-per-task=1", "--", "--num_points", "64"),
        *("--crop", "32"),
        CALVIN_ROOT=str(calvin_folder),
        CALVIN_ZARR_PATH="data/new.zarr",
        SLURM_CONF=str(cluster.configuration),
    )
    assert done.returncode == 0, done.stderr
    assert "by array 0-2" in done.stdout
    assert f"would convert {open_store(converted).n_frames} frames" in done.stdout
    assert not (project / "data").exists()


def test_dry_check_of_a_conversion_finds_a_missing_dataset(run_script):
    done = run_script(CONVERT, "--test", CALVIN_ROOT="no/calvin")
    assert done.returncode == 2
    assert "CALVIN_ROOT=no/calvin: no CALVIN dataset there" in done.stderr


def test_training_script_outside_of_a_job_says_so(run_script):
    done = run_script(TRAIN)
    assert done.returncode == 2
    assert "submit this script with sbatch" in done.stderr


def test_script_outside_of_the_repository_says_so(tmp_path):
    script = Path(shutil.copy(ROOT / TRAIN, tmp_path / "elsewhere.sh"))
    environment = {**os.environ, "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"error: {tmp_path} is not LangSteer's folder; call sbatch there" in done.stderr
