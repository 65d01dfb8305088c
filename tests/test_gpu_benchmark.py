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
    done = run("--cpu", "--only", "gradients", "nan", "resident", "against", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert len(found["rows"]) == 18
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
