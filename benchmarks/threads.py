"""Training steps a second, with OpenMP's threads that wait in a loop and that wait asleep.

Run from the repository's root, on a machine that is otherwise idle::

    python benchmarks/threads.py              # one competing process per core, and none
    python benchmarks/threads.py --rivals 0   # none alone, on a machine with work of its own

Each measurement is a process of its own, since OpenMP reads its policy once. The policies take
turns, so that a machine that changes its speed meanwhile changes all of them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.threads import ASLEEP, CHOSEN_BY_USER

BATCH, SECONDS, ROUNDS = 32, 6.0, 3
POLICIES = {"in a loop": {"OMP_WAIT_POLICY": "active"}, "asleep": ASLEEP, "default": {}}


def steps_a_second(network: str, threads: int) -> float:
    """Of this process: a training step of a network, again and again."""
    import numpy as np
    import torch

    from langsteer.configuration import compose
    from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
    from langsteer.training.config import TrainingConfig
    from langsteer.training.pytorch_util import make_optimizer, step_unless_broken

    torch.set_num_threads(threads)
    config = compose("train", [f"policy={network}"])
    policy = DP3(DP3Config.from_dict(config["policy"]))
    random = np.random.default_rng(0)
    robot_obs, actions = random.normal(size=(99, 15)), random.uniform(-1, 1, (99, 7))
    policy.set_normalizer(Normalizer.fit(policy.config, robot_obs, actions))
    optimizer = make_optimizer(policy, TrainingConfig.from_dict(config["training"]))
    obs = {"point_cloud": torch.rand(BATCH, 2, 2048, 3), "agent_pos": torch.rand(BATCH, 2, 15)}
    batch = {"obs": obs, "action": torch.rand(BATCH, 16, 7) * 2 - 1}
    steps, start = -1, 0.0
    while not start or time.perf_counter() - start < SECONDS:
        policy(batch).backward()
        step_unless_broken(optimizer, policy)
        start = start or time.perf_counter()
        steps += 1
    return steps / (time.perf_counter() - start)


@contextmanager
def rivals(count: int) -> Iterator[None]:
    """Processes that use a core each, for the duration of the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measured(network: str, threads: int, policy: dict[str, str]) -> float:
    """`steps_a_second` of a process with an OpenMP policy."""
    inherited = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USER}
    # "default" is what PyTorch does by itself: the spin count that GNU's library would choose.
    chosen = policy or {"GOMP_SPINCOUNT": "300000"}
    command = [sys.executable, __file__, "--measure", network, str(threads)]
    done = subprocess.run(command, env=inherited | chosen, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["quickstart", "simple_dp3"])
    parser.add_argument("--rivals", type=int, nargs="+", default=[0, os.cpu_count() or 1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(steps_a_second(options.measure[0], int(options.measure[1])))
        return
    print(f"{'network':12}{'rivals':>7}{'threads':>8}" + "".join(f"{p:>12}" for p in POLICIES))
    for network in options.networks:
        for count in options.rivals:
            for threads in options.threads:
                found: dict[str, list[float]] = defaultdict(list)
                with rivals(count):
                    for _ in range(ROUNDS):
                        for name, policy in POLICIES.items():
                            found[name].append(measured(network, threads, policy))
                rates = "".join(f"{median(values):12.2f}" for values in found.values())
                print(f"{network:12}{count:7}{threads:8}{rates}", flush=True)


if __name__ == "__main__":
    main()
