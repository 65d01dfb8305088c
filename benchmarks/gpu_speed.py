"""The checks of `gpu.py` about speed and memory; their limits bind on an H100 only.

The model behind the limits (dp3, batch 128, bf16): 960 GFLOP and 27 GB a step, 13 to 16 ms; 6 to 7
ms with everything compiled. It is a calculation; no GPU has measured it yet.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import policy as against_reference
import torch
from gpu_common import Bench, Check, at_least, at_most
from gpu_correctness import optimizer_of
from torch import nn

from langsteer.data.store import open_store
from langsteer.policies.dp3 import DP3
from langsteer.policies.dp3.graphs import DenoiserGraphs
from langsteer.steering.guidance import GradientGuidance, Strength
from langsteer.steering.objectives import Reference
from langsteer.training.calvin_dataset import Batch, CalvinData, train_loader
from langsteer.training.config import TrainingDatasetConfig
from langsteer.training.ema_model import EMAModel
from langsteer.training.pytorch_util import step_unless_broken, to_device
from langsteer.training.replay_buffer import ReplayBuffer
from langsteer.training.sampler import Schedule

BATCH, WARM_UP, STEPS = 128, 5, 30
POLICIES = ("dp3", "simple_dp3")
EQUAL = 0.97
"""A choice whose ratio to its alternative is less is the slower one."""


def steps_of(policy: DP3, called: nn.Module | None = None) -> Callable[[dict], None]:
    """A whole training step, with the average of the weights; ``called`` wraps the policy."""
    optimizer, ema = optimizer_of(policy), EMAModel(policy)
    network = policy if called is None else called

    def step(batch: dict) -> None:
        seen = {"obs": batch["obs"], "action": batch["action"]}
        with policy.precision.products(policy.device):
            network(seen, batch["noise"], batch["timesteps"]).backward()
        step_unless_broken(optimizer, policy)
        ema.update(policy)

    return step


def samples_a_second(step: Callable[[dict], None], batch: dict) -> float:
    """Of a batch that lies on the device."""
    for _ in range(WARM_UP):
        step(batch)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step(batch)
    torch.cuda.synchronize()
    return STEPS * BATCH / (time.perf_counter() - start)


def throughput(bench: Bench) -> list[Check]:
    """Resident batches: the reference's way, each precision, compiled; memory at its highest."""
    checks, batch = [], bench.batch(BATCH)
    seen = {"obs": batch["obs"], "action": batch["action"]}
    for name in POLICIES:
        plain = against_reference.plain(name).to(bench.device)
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-4, weight_decay=1e-6)

        def usual(_: dict, plain: DP3 = plain, optimizer: torch.optim.AdamW = optimizer) -> None:
            plain.compute_loss(seen).backward()
            optimizer.step()
            optimizer.zero_grad()

        rates = {"reference fp32": samples_a_second(usual, batch)}
        del plain, optimizer, usual
        for kind in ("fp32", "tf32", "bf16", "bf16 compiled"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            policy = bench.policy(name, kind.split()[0])
            step = steps_of(policy)
            if kind.endswith("compiled"):
                policy.compile_parts()
            rates[kind] = samples_a_second(step, batch)
            if (name, kind) == ("dp3", "bf16"):
                peak = torch.cuda.max_memory_allocated() / 1e9
                checks.append(at_most("dp3 bf16, peak memory", peak, 12, " GB", speed=True))
                checks.append(_busy(step, batch))
            del policy, step
        ratio = rates["bf16"] / rates["reference fp32"]
        compiled = rates["bf16 compiled"] / rates["bf16"]
        least = 8000.0 if name == "dp3" else 0.0
        for kind, rate in rates.items():
            limit = least if kind == "bf16" else 0.0
            checks.append(at_least(f"{name} {kind}", rate, limit, " samples/s", speed=True))
        checks.append(at_least(f"{name} bf16 against reference", ratio, 2, "x", speed=True))
        checks.append(at_least(f"{name} compiled against not", compiled, 1.2, "x", speed=True))
    return checks


def _busy(step: Callable[[dict], None], batch: dict) -> Check:
    """Share of the time in which kernels run."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        start = time.perf_counter()  # the profiler itself takes a second to begin
        for _ in range(10):
            step(batch)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    kernels = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return at_least("dp3 bf16, share of time with kernels", kernels / seconds, 0.9, speed=True)


def through_the_loader(bench: Bench) -> list[Check]:
    """Three epochs through the loader against resident batches, and the change of epochs."""
    policy = bench.policy("dp3", "bf16")
    step, batch = steps_of(policy), bench.batch(BATCH)
    resident = samples_a_second(step, batch)
    checks, rates = [], {}
    for kind, on_device, workers in (("store", False, 8), ("device", True, 1)):
        data = CalvinData(open_store(bench.store), policy.config, TrainingDatasetConfig(), seed=0)
        if on_device:
            data.buffer.move_points_to(bench.device, data.used_rows())
        schedule = Schedule(len(data.train), BATCH, 1, seed=0)
        batches = train_loader(data, schedule, 0, 0, 4, workers, pin_memory=True)

        def learn(read: Batch, buffer: ReplayBuffer = data.buffer) -> None:
            step(to_device(read, bench.device, buffer))

        rates[kind], change = _over_epochs(batches, learn, schedule.steps_per_epoch)
        share = rates[kind] / resident
        checks.append(at_least(f"loader from {kind}, of resident", share, 0.95, speed=True))
        checks.append(at_most(f"change of epoch, from {kind}", change, 0.3, " s", speed=True))
    ratio = rates["device"] / rates["store"]
    checks.append(at_least("points on the device against the store's", ratio, EQUAL, "x", True))
    return checks


def _over_epochs(
    batches: Iterator[Batch], learn: Callable[[Batch], None], steps: int
) -> tuple[float, float]:
    """Windows a second after the first epoch, and the longest wait for an epoch's first batch.

    Nothing waits for the GPU between two steps, as in training.
    """
    waits, windows, start, asked = [], 0, 0.0, time.perf_counter()
    for number, read in enumerate(batches):
        if number and number % steps == 0:
            waits.append(time.perf_counter() - asked)
        if number == steps:  # the first epoch warms up
            torch.cuda.synchronize()
            start = time.perf_counter()
        if number >= steps:
            windows += len(read["action"])
        learn(read)
        asked = time.perf_counter()
    torch.cuda.synchronize()
    return windows / (time.perf_counter() - start), max(waits)


def recompilations(bench: Bench) -> list[Check]:
    """After the second epoch nothing is compiled any more, partial batches included."""
    policy = bench.policy("simple_dp3", "bf16")
    policy.compile_parts()
    step = steps_of_compiled(policy)

    def graphs() -> int:
        return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    counts = []
    for _ in range(4):
        for size in (32, 32, 9):
            step(bench.batch(size))
        counts.append(graphs())
    return [at_most("graphs compiled after epoch 2", counts[-1] - counts[1], 0)]


def steps_of_compiled(policy: DP3) -> Callable[[dict], None]:
    """Steps of a policy that is compiled already, and so cannot be copied for an average."""
    optimizer = optimizer_of(policy)

    def step(batch: dict) -> None:
        seen = {"obs": batch["obs"], "action": batch["action"]}
        policy(seen, batch["noise"], batch["timesteps"]).backward()
        step_unless_broken(optimizer, policy)

    return step


def latency(bench: Bench) -> list[Check]:
    """Milliseconds of a prediction for one observation: eager, by graph, guided."""
    checks = []
    for name, limits in {"dp3": (30.0, 8.0), "simple_dp3": (15.0, 4.0)}.items():
        policy = bench.policy(name, "bf16").eval().requires_grad_(False)
        policy.precision.cast_weights(policy.model)
        for samples in (1, 16):
            checks += _latencies(policy, bench.batch(1)["obs"], samples, name, limits)
    return checks


def _latencies(
    policy: DP3, obs: dict, samples: int, name: str, limits: tuple[float, float]
) -> list[Check]:
    noise = torch.randn(samples, 16, 7, device=policy.device)
    targets, pose = torch.zeros(3, 15, 7), torch.zeros(6, device=policy.device)
    steering = GradientGuidance(Reference(targets), pose, 1, Strength())

    def predict(guidance: GradientGuidance | None = None) -> torch.Tensor:
        found = policy.predict_action(
            obs, noise=noise, guidance=guidance, samples_per_observation=samples
        )
        action: torch.Tensor = found["action"]
        return action

    policy.graphs = None
    eager, guided = milliseconds(predict), milliseconds(lambda: predict(steering))
    exact = predict()
    policy.graphs = DenoiserGraphs()
    graph = milliseconds(predict)
    guided_graph, replayed = milliseconds(lambda: predict(steering)), predict()
    what, difference = f"{name}, {samples} samples", float((exact - replayed).abs().max())
    return [
        at_most(f"{what}, eager", eager, limits[0], " ms", speed=True),
        at_most(f"{what}, graph", graph, limits[1], " ms", speed=True),
        at_most(f"{what}, guided against eager", guided / eager, 2, "x", speed=True),
        at_most(f"{what}, guided graph against guided", guided_graph / guided, 1, "x", speed=True),
        at_most(f"{what}, graph against eager, difference", difference, 1e-3),
    ]


def milliseconds(work: Callable[[], object]) -> float:
    """Median time of ``work``, of the GPU too."""
    times = []
    for _ in range(25):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[5:])) * 1000


def cost_of_determinism(bench: Bench) -> list[Check]:
    """Samples a second with training.deterministic=true, of those without."""
    batch = bench.batch(BATCH)
    free = samples_a_second(steps_of(bench.policy("dp3", "bf16")), batch)
    torch.use_deterministic_algorithms(True)
    try:
        bound = samples_a_second(steps_of(bench.policy("dp3", "bf16")), batch)
    finally:
        torch.use_deterministic_algorithms(False)
    return [at_least("dp3 bf16, deterministic of not", bound / free, 0.5, "x", speed=True)]


CHECKS: dict[str, Callable[[Bench], list[Check]]] = {
    "throughput": throughput,
    "loader": through_the_loader,
    "recompilations": recompilations,
    "latency": latency,
    "determinism": cost_of_determinism,
}
