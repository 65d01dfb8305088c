"""The checks of `gpu.py` that a wrong result fails; most also run on a CPU, against itself."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from gpu_common import Bench, Check, at_least, at_most
from torch import Tensor
from torch import distributed as dist

from langsteer.configuration import compose
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config
from langsteer.training.calvin_dataset import Batch, CalvinData, train_loader
from langsteer.training.checkpoint_util import CheckpointManager
from langsteer.training.config import TrainingConfig, TrainingDatasetConfig
from langsteer.training.learner import Learner
from langsteer.training.pytorch_util import (
    data_parallel,
    make_optimizer,
    step_unless_broken,
    to_device,
)
from langsteer.training.run_state import RunState
from langsteer.training.sampler import Schedule
from langsteer.training.world import World

CPU = torch.device("cpu")
# Relative differences from float32 on a CPU.
LIMITS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 3e-2}
GRADIENT_LIMITS = {**LIMITS, "fp32": 1e-3}
LEAST_LIKENESS = 0.99
# A training whose rounding errors the optimiser does not blow up, since its steps are small.
GENTLE = ("training.num_epochs=2", "training.precision=fp32", "training.learning_rate=1e-5")
ROOT = Path(__file__).resolve().parents[1]


def relative(found: Tensor, exact: Tensor) -> float:
    """Length of the difference, of the length of the exact one."""
    found, exact = found.detach().cpu().double(), exact.detach().cpu().double()
    return float((found - exact).norm() / exact.norm().clamp_min(1e-30))


def outputs(policy: DP3, batch: dict) -> dict[str, Tensor]:
    """What is compared: features, U-Net, loss, a ten-step sample; all gradients as one vector."""
    device, noise, timesteps = policy.device, batch["noise"], batch["timesteps"]
    with policy.precision.products(device):
        features = policy.encode(batch["obs"])
        with policy.precision.autocast(device):
            unet = policy.model(noise, timesteps, features).float()
        policy.zero_grad()
        loss = policy(batch, noise, timesteps)
        loss.backward()
    sample = policy.predict_action(batch["obs"], noise=noise)["action_pred"]
    of_all = {"features": features, "unet": unet, "loss": loss, "sample": sample}
    return {**of_all, "grad": _gradient(policy)}


def against_cpu(bench: Bench) -> list[Check]:
    """Device against CPU, in each precision."""
    exact = outputs(bench.policy("simple_dp3", "fp32", CPU), bench.batch(8, CPU))
    checks = []
    for precision, limit in LIMITS.items():
        found = outputs(bench.policy("simple_dp3", precision), bench.batch(8))
        for name, value in found.items():
            allowed = GRADIENT_LIMITS[precision] if name == "grad" else limit
            error = relative(value, exact[name])
            checks.append(at_most(f"against CPU, {precision}, {name}", error, allowed))
    return checks


def gradients_in_bf16(bench: Bench) -> list[Check]:
    """Every weight is reached in bf16, and in the direction of fp32."""
    found = {}
    for precision in ("fp32", "bf16"):
        policy, batch = bench.policy("simple_dp3", precision), bench.batch(32)
        with policy.precision.products(policy.device):
            policy(batch, batch["noise"], batch["timesteps"]).backward()
        found[precision] = {name: weight.grad for name, weight in policy.named_parameters()}
    reached = {
        name: gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        for name, gradient in found["bf16"].items()
    }
    missing = [name for name, is_reached in reached.items() if not is_reached]
    if missing:
        return [Check("bf16 gradients", f"none of {missing[0]}", "of every weight", False)]
    likeness = min(
        float(torch.cosine_similarity(g.flatten(), found["fp32"][name].flatten(), dim=0))
        for name, g in found["bf16"].items()
    )
    return [at_least("bf16 gradients, least cosine to fp32", likeness, LEAST_LIKENESS)]


def optimizer_of(policy: DP3) -> torch.optim.AdamW:
    """As training makes it."""
    return make_optimizer(policy, TrainingConfig.from_dict(compose("train")["training"]))


def trainer_of(bench: Bench) -> tuple[Callable[[Batch], None], Iterator[Batch]]:
    """The trainer's own step in bf16, and its batches, with the points on the device."""
    config = compose("train", [*bench.network("simple_dp3"), "training.precision=bf16"])
    settings = TrainingConfig.from_dict(config["training"])
    policy = DP3Config.from_dict(config["policy"])
    data = CalvinData(open_store(bench.store), policy, TrainingDatasetConfig(), seed=0)
    data.buffer.move_points_to(bench.device, data.used_rows())
    schedule = Schedule(len(data.train), batch_size=8, accumulation=1, seed=0)
    learner = Learner(RunState(settings, policy, data, schedule, bench.device), World())

    def step(batch: Batch) -> None:
        learner.add(batch)
        learner.step()

    on_gpu = bench.device.type == "cuda"
    return step, train_loader(data, schedule, 0, 0, 1, num_workers=0, pin_memory=on_gpu)


def no_waiting(bench: Bench) -> list[Check]:
    """Five steps without a wait for the GPU."""
    step, batches = trainer_of(bench)
    first, *rest = islice(batches, 6)
    step(first)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in rest:
            step(batch)
        problem = ""
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [Check("five steps without a wait", problem or "none", "none", not problem)]


def resident_points(bench: Bench) -> list[Check]:
    """Points on the device are the loader's, to the bit."""
    policy = bench.policy("simple_dp3", "fp32", CPU).config

    def batch(resident: bool) -> Tensor:
        data = CalvinData(open_store(bench.store), policy, TrainingDatasetConfig(), seed=0)
        if resident:
            data.buffer.move_points_to(bench.device, data.used_rows())
        index = torch.arange(40).numpy()
        moved = to_device(data.batch(data.train, index), bench.device, data.buffer)
        points: Tensor = moved["obs"]["point_cloud"]
        return points

    same = torch.equal(batch(True), batch(False))
    return [Check("points on the device", "equal" if same else "differ", "equal", same)]


def nan_changes_nothing(bench: Bench) -> list[Check]:
    """A batch with a NaN changes no weight."""
    policy, batch = bench.policy("simple_dp3", "bf16"), bench.batch(32)
    batch["action"][3, 2, 1] = torch.nan
    optimizer = optimizer_of(policy)
    before = [weight.detach().clone() for weight in policy.parameters()]
    policy(batch, batch["noise"], batch["timesteps"]).backward()
    norm = step_unless_broken(optimizer, policy)
    kept = all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    passed = kept and not bool(norm.isfinite())
    return [Check("NaN batch", "no weight changed" if kept else "weights changed", "none", passed)]


def learning(bench: Bench) -> list[Check]:
    """The last losses and the validation of short trainings in each precision agree."""
    epochs = 50 if bench.tiny else 3  # of 6 steps, and of 143
    kinds = {"fp32": [], "tf32": [], "bf16": []}
    if bench.device.type == "cuda":
        kinds["bf16 compiled"] = ["training.compile=true"]
    last, validation = {}, {}
    for kind, keys in kinds.items():
        name = f"learning_{kind.replace(' ', '_')}"
        precision = kind.split()[0]
        bench.train(name, f"training.num_epochs={epochs}", f"training.precision={precision}", *keys)
        lines = (bench.folder / name / "metrics.jsonl").read_text().splitlines()
        losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
        last[kind] = sum(losses[-50:]) / len(losses[-50:])
        validation[kind] = bench.latest(name)["metrics"]["val_loss"]
    return [
        at_most(f"{what}, {kind} against fp32", abs(found[kind] / found["fp32"] - 1), limit)
        for what, found, limit in (
            ("last 50 losses", last, 0.03),
            ("validation loss", validation, 0.05),
        )
        for kind in list(kinds)[1:]
    ]


def resumed(bench: Bench) -> list[Check]:
    """A deterministic run that SIGUSR1 stopped and that was resumed equals the undisturbed one."""
    keys = ["training.num_epochs=4", "training.deterministic=true", "training.precision=auto"]
    try:
        bench.train("whole", *keys)
        metrics = bench.folder / "stopped" / "metrics.jsonl"
        stopper = threading.Thread(target=_signal_after_lines, args=(metrics, 5))
        stopper.start()
        finished, _ = bench.train("stopped", *keys)
        stopper.join()
        bench.train("stopped", *keys, "training.resume=true")
    finally:
        torch.use_deterministic_algorithms(False)
    one, other = bench.latest("whole"), bench.latest("stopped")
    same = all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    return [
        Check("SIGUSR1 stopped the run", str(not finished), "True", not finished),
        Check("resumed weights", "equal" if same else "differ", "equal to the bit", same),
    ]


def _signal_after_lines(path: Path, count: int) -> None:
    while not path.exists() or path.read_text().count("\n") < count:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGUSR1)


def checkpoint_meanwhile(bench: Bench) -> list[Check]:
    """A checkpoint that is written while steps go on is the state at its call."""
    policy, batch = bench.policy("dp3", "bf16"), bench.batch(32)
    optimizer = optimizer_of(policy)

    def step() -> None:
        policy(batch, batch["noise"], batch["timesteps"]).backward()
        step_unless_broken(optimizer, policy)

    for _ in range(2):
        step()
    snapshot = {key: value.detach().cpu().clone() for key, value in policy.state_dict().items()}
    folder = bench.folder / "meanwhile"
    folder.mkdir()
    manager = CheckpointManager(folder, 1)
    begun = time.perf_counter()
    manager.save_latest({"model": policy.state_dict(), "optimizer": optimizer.state_dict()})
    stall = time.perf_counter() - begun
    for _ in range(3):
        step()
    manager.wait()
    written = torch.load(folder / "latest.ckpt", weights_only=True)["model"]
    same = all(torch.equal(written[key], value) for key, value in snapshot.items())
    return [
        Check("checkpoint beside steps", "equal" if same else "differs", "the snapshot", same),
        at_most("stall of a checkpoint", stall, 2.5, " s", speed=True),
    ]


def _weights_of_ranks(bench: Bench, name: str, ranks: int, device: str) -> dict[str, Tensor]:
    """Train with torchrun and return the weights."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import torch; from pathlib import Path;"
        "from gpu_common import Bench; from gpu_correctness import GENTLE;"
        "from langsteer.errors import exits_cleanly;"
        "name, folder, kind, tiny, batch = sys.argv[3:];"
        "bench = Bench(torch.device(kind), Path(folder), tiny == '1', False);"
        "bench.__dict__['store'] = Path(folder) / 'store.zarr';"
        "exits_cleanly(lambda: print(bench.train(name, *GENTLE,"
        "f'training.batch_size={batch}')[1]))()"
    )
    script = bench.folder / "ranks.py"
    script.write_text(code)
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(script)]
    arguments = [str(ROOT), str(ROOT / "benchmarks"), name, str(bench.folder), device]
    arguments += [str(int(bench.tiny)), str(32 // ranks)]
    assert bench.store.exists()
    # On a machine with more GPUs both ranks would find one of their own.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        raise UserError((lines or done.stderr.splitlines()[-1:])[0])
    weights: dict[str, Tensor] = bench.latest(name)["model"]
    return weights


def groups(bench: Bench) -> list[Check]:
    """A group of one (NCCL on a GPU), and two gloo ranks, learn what a single process learns."""
    bench.train("single", *GENTLE)
    single = bench.latest("single")["model"]
    checks = []
    kinds = [("group of one", 1, bench.device.type), ("two gloo ranks on CPUs", 2, "cpu")]
    if bench.device.type == "cuda":
        bench_cpu = Bench(CPU, bench.folder, bench.tiny, False)
        bench_cpu.__dict__["store"] = bench.store
        bench_cpu.train("single_cpu", *GENTLE)
    for name, ranks, device in kinds:
        exact = single if device == bench.device.type else bench.latest("single_cpu")["model"]
        weights = _weights_of_ranks(bench, name.replace(" ", "_"), ranks, device)
        difference = max(float((weights[key] - exact[key]).abs().max()) for key in exact)
        checks.append(at_most(f"{name}, weights against one process", difference, 1e-5))
    return checks


def _gradient_of_rank(rank: int, bench: Bench, folder: str) -> None:
    """Of a half of the batch, averaged with the other rank's by gloo; rank 0 writes it."""
    store = dist.FileStore(f"{folder}/meet", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    policy, batch = bench.policy("simple_dp3", "fp32"), bench.batch(16)
    half = slice(8 * rank, 8 * rank + 8)
    seen = {
        "obs": {key: value[half] for key, value in batch["obs"].items()},
        "action": batch["action"][half],
    }
    parallel = data_parallel(policy)
    with policy.precision.products(policy.device):
        parallel(seen, batch["noise"][half], batch["timesteps"][half]).backward()
    if rank == 0:
        torch.save(_gradient(policy), f"{folder}/gradient")
    dist.barrier()
    dist.destroy_process_group()


def _gradient(policy: DP3) -> Tensor:
    return torch.cat([weight.grad.flatten().cpu() for weight in policy.parameters()])


def two_on_one_device(bench: Bench) -> list[Check]:
    """Two gloo ranks on one device have the gradient of one process."""
    folder = bench.folder / "two_on_one_device"
    folder.mkdir()
    torch.multiprocessing.spawn(_gradient_of_rank, (bench, str(folder)), nprocs=2)
    policy, batch = bench.policy("simple_dp3", "fp32"), bench.batch(16)
    with policy.precision.products(policy.device):
        policy(batch, batch["noise"], batch["timesteps"]).backward()
    error = relative(torch.load(folder / "gradient", weights_only=True), _gradient(policy))
    name = "two gloo ranks on one device, gradient against one process"
    return [at_most(name, error, LIMITS["fp32"])]


def one_line_errors(bench: Bench) -> list[Check]:
    """Two NCCL ranks on one GPU, and a batch of a million: one line each, within a minute."""
    checks = []
    begun = time.perf_counter()
    try:
        _weights_of_ranks(bench, "two_on_one", 2, "cuda")
        said = "it ran"
    except UserError as error:
        said = str(error)
    passed = said.startswith("error:") and time.perf_counter() - begun < 60
    checks.append(Check("two NCCL ranks on one GPU", said[:70], "one line in 60 s", passed))
    begun, million = time.perf_counter(), 10**6
    policy = bench.policy("dp3", "bf16")
    try:
        from langsteer.training.pytorch_util import explained_out_of_memory

        with explained_out_of_memory(TrainingConfig.from_dict(compose("train")["training"])):
            policy.obs_encoder.extractor(
                torch.empty(2 * million, bench.points, 3, device=bench.device)
            )
        said = "it fitted"
    except UserError as error:
        said = str(error).splitlines()[0]
    finally:
        torch.cuda.empty_cache()
    passed = "out of memory" in said and time.perf_counter() - begun < 60
    checks.append(Check("batch of 10^6", said[:70], "one line in 60 s", passed))
    return checks


CHECKS: dict[str, Callable[[Bench], list[Check]]] = {
    "against_cpu": against_cpu,
    "gradients": gradients_in_bf16,
    "waiting": no_waiting,
    "resident": resident_points,
    "nan": nan_changes_nothing,
    "learning": learning,
    "resumed": resumed,
    "checkpoint": checkpoint_meanwhile,
    "groups": groups,
    "one_device": two_on_one_device,
    "errors": one_line_errors,
}
ON_CPU = (
    against_cpu,
    gradients_in_bf16,
    resident_points,
    nan_changes_nothing,
    learning,
    resumed,
    checkpoint_meanwhile,
    groups,
    two_on_one_device,
)
"""Those that need no GPU: there they check the same code of a CPU."""
