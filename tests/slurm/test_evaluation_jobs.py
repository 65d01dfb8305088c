"""Evaluation on a real SLURM."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from langsteer.data.pointcloud import ObservationPipeline

pytest.importorskip("pybullet")
SCRIPT = "scripts/slurm_evaluate.sh"
SHORT = ["num_chains=3", "max_steps=8", "videos=0"]


@pytest.fixture
def checkpoint(undisturbed: Path, project: Path) -> str:
    """The trained policy, said to have seen what the simulator shows."""
    payload = torch.load(undisturbed / "latest.ckpt", weights_only=True)
    payload["pipeline"] = ObservationPipeline(n_points=64).to_dict()
    torch.save(payload, project / "policy.ckpt")
    return "policy.ckpt_path=policy.ckpt"


def without_times(value):
    """Nested plain values without what a clock measured."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if "_ms" not in key}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results(folder: Path):
    """What the benchmark says in all, and of each chain."""
    paths = [folder / "results.json", *sorted((folder / "chains").glob("*.json"))]
    contents = [without_times(json.loads(path.read_text())) for path in paths]
    return contents[0], contents[1:]


def test_array_of_jobs_plays_the_chains_of_one_process(cluster, project, checkpoint):
    alone = ["scripts/evaluate_calvin.py", checkpoint, *SHORT, "output_dir=one"]
    subprocess.run([sys.executable, *alone], cwd=project, check=True, capture_output=True)
    sbatch = ["sbatch", "--wait", "--array=0-1", "--cpus-per-task=1", SCRIPT]
    cluster.command(*sbatch, checkpoint, *SHORT, "output_dir=array", folder=project)
    numbers, chains = results(project / "array")
    assert (numbers, chains) == results(project / "one")
    assert len(chains) == 3


def test_dry_check_of_an_evaluation(run_script, checkpoint):
    done = run_script(SCRIPT, "--test", "policy.ckpt_path=no/such.ckpt")
    assert done.returncode == 2
    assert "no/such.ckpt" in done.stderr
