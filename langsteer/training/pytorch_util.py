"""Training's use of PyTorch: device, threads, optimiser, learning rate, moving batches.

Example::

    device = choose_device("auto", World())
    optimizer = make_optimizer(policy, config)
"""

import inspect
import math
import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from langsteer.errors import UserError
from langsteer.training.config import TrainingConfig
from langsteer.training.replay_buffer import ReplayBuffer
from langsteer.training.world import World

BUCKET_MB = 25
"""Megabytes of gradients sent at once: PyTorch's own choice, until GPUs show a better one."""


def choose_device(wanted: str, world: World, gpus_of_job: int = 0) -> torch.device:
    """This rank's device: its node's GPU of the local rank's number, else the CPU.

    A job with GPUs trains on them or not at all, unless it asks for the CPU.

    Raises:
        UserError: a GPU is wanted and there is none for this rank.
    """
    count = torch.cuda.device_count() if wanted != "cpu" else 0
    if count == 0:
        if wanted == "cuda" or (wanted == "auto" and gpus_of_job):
            raise UserError(_why_no_gpu(wanted, gpus_of_job))
        return torch.device("cpu")
    # SLURM may show each task its own GPU alone, as number 0; torchrun shows all.
    number = 0 if count == 1 and world.launcher == "slurm" else world.local_rank
    if number >= count:
        raise UserError(
            f"local rank {world.local_rank} has no GPU of its own: this node shows {count}; start "
            "one process for each GPU"
        )
    return torch.device("cuda", number)


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore PyTorch's number of threads after the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _why_no_gpu(wanted: str, gpus_of_job: int) -> str:
    job = f" (this job has {gpus_of_job} on the node)" if gpus_of_job else ""
    if torch.version.cuda is None:
        reason = (
            f"PyTorch {torch.__version__} of this environment is built without CUDA; install a "
            "CUDA build (pytorch.org)"
        )
    else:
        reason = "PyTorch finds none; nvidia-smi tells whether the node's driver works"
    return f"training.device={wanted}: no GPU{job}: {reason}, or set training.device=cpu"


def data_parallel(
    module: nn.Module, deterministic: bool = False, compression: str = "none"
) -> DistributedDataParallel:
    """Averages gradients over the ranks; buffers never change and are not sent at each step.

    Args:
        module: its gradients become views of the buckets they are sent in.
        deterministic: keep the buckets of the first step. Otherwise they are refilled in the order
            the gradients came. A resumed run would then add up in another order.
        compression: of the gradients sent: ``none`` or ``bf16``, half the bytes.
    """
    # PyTorch 2.13 renamed the argument.
    new, old = "forward_sync_buffers", "broadcast_buffers"
    name = new if new in inspect.signature(DistributedDataParallel).parameters else old
    options: dict[str, Any] = {name: False}
    # With a search for unused weights PyTorch leaves the buckets as they are.
    options["find_unused_parameters"] = deterministic
    parallel = DistributedDataParallel(
        module, gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB, **options
    )
    if compression == "bf16":
        parallel.register_comm_hook(None, _sent_in_bf16)
    return parallel


def _sent_in_bf16(
    group: dist.ProcessGroup | None, bucket: dist.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """PyTorch's hook; under its own name gloo refuses it."""
    # PyTorch takes None for the default group, whatever its types say.
    return default_hooks.bf16_compress_hook(group, bucket)  # type: ignore[arg-type]


def make_deterministic(environment: MutableMapping[str, str]) -> None:
    """Have PyTorch compute the same bits each time, before it first uses a GPU."""
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def make_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """AdamW on all trained weights, in its fused form."""
    return AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        eps=1e-8,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(step: int, total_steps: int, peak: float, warmup_steps: int) -> float:
    """The rate of optimiser step ``step`` (from 0): linear from 0 to the peak, then a cosine to 0.

    It depends on the step alone, so it is the same after a resume.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    past = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(past, 1.0)))


def to_device(batch: dict[str, Any], device: torch.device, buffer: ReplayBuffer) -> dict[str, Any]:
    """Copy a batch's tensors without waiting; points on the device are gathered there."""
    moved = {key: _moved(value, device) for key, value in batch.items()}
    obs = moved["obs"]
    if "places" in obs:
        obs["point_cloud"] = buffer.device_points(obs.pop("places"))
    return moved


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - nested containers
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    return value


def require_gradients(model: nn.Module) -> None:
    """Raise `UserError` naming the trained weights that the loss does not reach.

    Such layers would stay as drawn, and nothing else would tell. In PyTorch before 2.13, autocast
    does that to a weight it first meets without gradients (its issue 112583).
    """
    unreached = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is None
    ]
    if unreached:
        more = f" and {len(unreached) - 1} more weights" if len(unreached) > 1 else ""
        raise UserError(
            f"{unreached[0]}{more} got no gradient in the first step and would never be trained; "
            f"this is a fault of PyTorch {torch.__version__} or of LangSteer: report it, and train "
            "with training.precision=tf32 training.compile=false meanwhile"
        )


def step_unless_broken(optimizer: AdamW, model: nn.Module) -> torch.Tensor:
    """Let the optimiser step, unless a gradient is not finite; then no weight changes.

    The optimiser itself looks at the flag, on its device: nothing waits for the GPU.

    Returns:
        The norm of all gradients, a scalar on the device; not finite if no step was taken.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    # AdamW's fused kernel skips the step if this flag is set, without asking the CPU.
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    # Freed and not zeroed: the next backward pass writes instead of adding.
    optimizer.zero_grad(set_to_none=True)
    return norm


def summable(value: torch.Tensor) -> torch.Tensor:
    """A float64 rounded to a multiple of 2^-36: sums of such are exact up to 2^16, in any order.

    So a mean over steps is the same wherever an interruption, or a rank, cuts their sum.
    """
    return torch.round(value * 2.0**36) / 2.0**36


@contextmanager
def explained_out_of_memory(config: TrainingConfig) -> Iterator[None]:
    """Turn an error of memory, or of a dead loader worker, into one that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if _lacks_shared_memory(error):
            raise UserError(
                f"loader workers have too little shared memory: {str(error).splitlines()[0]}\ntry "
                "training.num_workers=1, or 0; or give the container more of /dev/shm "
                "(docker run --shm-size=8g, or --ipc=host)"
            ) from error
        dead = _DEAD_WORKER.search(f"{error} {error.__cause__}")
        if dead:
            raise UserError(_of_dead_worker(dead["how"], config)) from error
        if not _is_out_of_memory(error):
            raise
        half = max(1, config.batch_size // 2)
        raise UserError(
            f"out of memory with training.batch_size={config.batch_size}: "
            f"{str(error).splitlines()[0]}\ntry training.batch_size={half} "
            f"training.gradient_accumulation_steps={config.gradient_accumulation_steps * 2} (the "
            "same effective batch size), training.points_on_device=false, fewer "
            "training.num_workers, or policy=simple_dp3"
        ) from error


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    # CUDA's libraries say so if their own buffers do not fit.
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cudnn_status_internal_error_device_allocation_failed",
)
# What the loader says of a worker.
_DEAD_WORKER = re.compile(
    r"DataLoader worker \(pid[^)]*\) (?P<how>is killed by signal: [^.]+|exited unexpectedly)"
)


def _of_dead_worker(how: str, config: TrainingConfig) -> str:
    """What happened to a loader worker, and what to do."""
    begin = (
        f"a loader worker {how}; the last checkpoint is kept, training.resume=true goes on from it"
    )
    if how.endswith("Killed"):
        return (
            f"{begin}. Mostly the system or SLURM does that for want of memory (dmesg, or "
            "sacct -o MaxRSS, tells); try fewer workers than training.num_workers="
            f"{config.num_workers}, or more memory for the job"
        )
    return (
        f"{begin}. That is a fault of a library or of the machine; training.num_workers=0 reads "
        "without workers and shows where. Check the store too "
        "(scripts/visualize_dataset.py --check)"
    )


_NO_SHARED_MEMORY = ("shared memory", "/torch_", "is killed by signal: bus error")


def _lacks_shared_memory(error: BaseException) -> bool:
    text = f"{error} {error.__cause__}".lower()
    return any(sign in text for sign in _NO_SHARED_MEMORY)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = f"{error} {error.__cause__}".lower()
    return any(sign in text for sign in _OUT_OF_MEMORY)
