"""``benchmarks/gpu.py`` runs where no GPU is, and a wrong result fails it."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def run(*arguments: str, patch: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import gpu, gpu_correctness\n"
        f"{patch}\ngpu.main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_correctness_is_checked_without_a_gpu(tmp_path):
    path = tmp_path / "found.json"
    checks = ("gradients", "nan", "resident", "against", "one_device")
    done = run("--cpu", "--only", *checks, "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert len(found["rows"]) == 19
    assert all(row["passed"] for row in found["rows"])
    assert "points on the device | equal | equal | PASS" in done.stdout


def test_wrong_result_fails_the_command(tmp_path):
    patch = (
        "def careless(optimizer, model):\n"
        "    norm = sum(weight.grad.norm() for weight in model.parameters())\n"
        "    optimizer.step()\n"
        "    return norm\n"
        "gpu_correctness.step_unless_broken = careless"
    )
    path = tmp_path / "found.json"
    done = run("--cpu", "--only", "nan", "--json", str(path), patch=patch)
    assert done.returncode == 1, done.stdout
    assert "weights changed" in done.stdout
    assert not json.loads(path.read_text())["rows"][0]["passed"]


WAITING = """
import os, torch
modes = []
torch.cuda.synchronize = lambda: None
torch.cuda.set_sync_debug_mode = modes.append
gpu_correctness.ON_CPU = (gpu_correctness.no_waiting,)
"""


def test_trainers_own_step_is_the_one_that_may_not_wait(tmp_path):
    path = tmp_path / "found.json"
    only = ("--cpu", "--only", "waiting", "--json", str(path))
    done = run(*only, patch=WAITING)
    assert "five steps without a wait | none | none | PASS" in done.stdout, done.stderr
    waits = (
        "def asks(self):\n"
        "    if modes[-1:] == ['error']:\n"
        "        raise RuntimeError('called a synchronizing operation')\n"
        "gpu_correctness.Learner._raise_if_broken = asks\n"
    )
    done = run(*only, patch=WAITING + waits)
    assert done.returncode == 1
    assert "five steps without a wait | called a synchronizing operation" in done.stdout


def test_deterministic_runs_find_cublas_prepared_before_its_first_product(tmp_path):
    patch = (
        "import os\n"
        "from gpu_common import Check\n"
        "def asked(bench):\n"
        "    return [Check('cublas', os.environ['CUBLAS_WORKSPACE_CONFIG'], '', True)]\n"
        "gpu_correctness.CHECKS['cublas'] = asked\n"
        "gpu_correctness.ON_CPU = (asked,)\n"
    )
    done = run("--cpu", "--only", "cublas", "--json", str(tmp_path / "found.json"), patch=patch)
    assert "cublas | :4096:8 |" in done.stdout, done.stderr


def test_limits_of_speed_bind_on_an_h100_alone():
    patch = (
        "from gpu_common import Bench, Check\n"
        "check = lambda bench: [Check('slow', '1', '2', False, speed=True)]\n"
        "for fast in (False, True):\n"
        "    bench = Bench(None, None, True, fast)\n"
        "    print([row.binding for row in gpu.run_check('slow', check, bench)])\n"
        "sys.exit()"
    )
    assert run(patch=patch).stdout == "[False]\n[True]\n"
