"""Prove or refute on this GPU what is claimed of training and sampling there.

From the repository's root, with the package alone (no ``[sim]``), on synthetic data::

    python benchmarks/gpu.py                    # about eight minutes on an H100
    python benchmarks/gpu.py --cpu              # the correctness half, anywhere, in a few minutes
    python benchmarks/gpu.py --only gradients   # some checks, by a part of their name

Prints ``check | measured | limit | PASS/FAIL`` and writes the same as JSON. Exit status 1: a check
of correctness failed, or one of speed on an H100; on other GPUs limits of speed are only printed.
Written without a GPU at hand: a check that fails may itself be wrong.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import langsteer  # noqa: F401, I001 - chooses how threads wait, before torch is imported
import gpu_choices
import gpu_correctness
import gpu_speed
import torch
from gpu_common import Bench, Check

GROUPS = (gpu_correctness.CHECKS, gpu_speed.CHECKS, gpu_choices.CHECKS)
FAST_GPU = "H100"


@dataclass(frozen=True)
class Row:
    """One line of the table; ``binding`` says whether a failure fails the run."""

    check: str
    measured: str
    limit: str
    passed: bool
    binding: bool

    def __str__(self) -> str:
        mark = "PASS" if self.passed else "FAIL" if self.binding else "fail (not binding here)"
        return f"{self.check} | {self.measured} | {self.limit} | {mark}"


def run_check(name: str, check: Callable[[Bench], list[Check]], bench: Bench) -> list[Row]:
    """The rows of one check; one that cannot run is a failed row and not the end."""
    try:
        found = check(bench)
    except Exception as error:  # the other checks shall still run
        traceback.print_exc(file=sys.stderr)
        found = [
            Check(name, f"{type(error).__name__}: {str(error).splitlines()[:1]}", "runs", False)
        ]
    return [
        Row(one.name, one.measured, one.limit, one.passed, not one.speed or bench.is_fast)
        for one in found
    ]


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="correctness alone, without a GPU")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of checks")
    parser.add_argument("--json", type=Path, default=Path("gpu_checks.json"), help="where to write")
    parser.add_argument("--tiny", action="store_true", help="a small network; default with --cpu")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU here; --cpu runs the correctness half")
    # PyTorch reads this once, at its first product, and deterministic runs need it. An H100 has
    # the same workspace by default.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cpu" if options.cpu else "cuda:0")
    name = "CPU" if options.cpu else torch.cuda.get_device_name(device)
    rows: list[Row] = []
    print(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print("check | measured | limit | PASS/FAIL", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, Path(scratch), options.tiny or options.cpu, FAST_GPU in name)
        for check_name, check in (item for group in GROUPS for item in group.items()):
            if not any(part in check_name for part in options.only):
                continue
            if options.cpu and check not in gpu_correctness.ON_CPU:
                continue
            for row in run_check(check_name, check, bench):
                rows.append(row)
                print(row, flush=True)
    seconds = time.perf_counter() - start
    failed = [row for row in rows if row.binding and not row.passed]
    options.json.write_text(
        json.dumps({"device": name, "torch": torch.__version__, "seconds": seconds,
                    "rows": [asdict(row) for row in rows]}, indent=1)
    )  # fmt: skip
    print(f"{len(rows)} checks, {len(failed)} failed, {seconds:.0f} s; {options.json}")
    if not rows:
        sys.exit("error: no check has such a name")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
