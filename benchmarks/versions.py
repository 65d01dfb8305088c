"""Processor time of a training step and a prediction: one checkout of ours against another.

Run from anywhere, in an environment that has the packages of both::

    OMP_NUM_THREADS=1 python benchmarks/versions.py BEFORE AFTER

Each checkout computes in a process of its own. The two take turns, so that other work on the
machine meets both alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 11
CASES = [
    (policy, work, repeats)
    for policy in ("quickstart", "simple_dp3")
    for work, repeats in (("train", 4), ("predict", 10))
]
"""Policy, work, and how often it is done in a round."""


class Version:
    """A process that times the work of one checkout."""

    def __init__(self, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )

    def seconds(self, policy: str, work: str, repeats: int) -> float:
        """Processor seconds of a repeat."""
        assert self._process.stdin and self._process.stdout
        print(policy, work, repeats, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def serve() -> None:
    """Answer each line of the standard input by the seconds of a repeat."""
    made: dict[tuple[str, str], Callable[[], object]] = {}
    for line in sys.stdin:
        policy, work, repeats = line.split()
        if (policy, work) not in made:
            made[policy, work] = _work(policy, work)
            made[policy, work]()
        start = time.process_time()
        for _ in range(int(repeats)):
            made[policy, work]()
        print((time.process_time() - start) / int(repeats), flush=True)


def _work(name: str, work: str) -> Callable[[], object]:
    """What is to be timed, from the checkout that PYTHONPATH names."""
    import torch

    from benchmarks import policy as benchmark

    torch.manual_seed(0)
    policy = benchmark.ours(name)
    if work == "predict":
        obs = benchmark.batch_of(1)["obs"]
        return torch.no_grad()(lambda: policy.predict_action(obs))
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True, **benchmark.ADAMW)
    batch = benchmark.batch_of(16)

    def step() -> None:
        policy.compute_loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="*", metavar="CHECKOUT", help="before, after")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    if len(arguments.checkouts) != 2:
        parser.error("give two checkouts")
    versions = [Version(checkout.resolve()) for checkout in arguments.checkouts]
    print(f"{'':20}{'before, ms':>12}{'after, ms':>12}{'ratio':>8}{'least':>8}{'most':>8}")
    for case in CASES:
        rounds = []
        for number in range(ROUNDS):
            # They take turns at being first, too.
            order = (0, 1) if number % 2 else (1, 0)
            times = {which: versions[which].seconds(*case) for which in order}
            rounds.append((times[0], times[1]))
        before, after = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(new / old for old, new in rounds)
        print(
            f"{case[0] + ' ' + case[1]:20}{before:12.1f}{after:12.1f}"
            f"{statistics.median(ratios):8.3f}{ratios[0]:8.3f}{ratios[-1]:8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
