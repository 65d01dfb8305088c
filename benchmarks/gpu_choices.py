"""The checks of `gpu.py` that measure each choice beside its alternative.

A default slower than its alternative fails on an H100 only. Precision, compilation, graphs, points
on the device and determinism have their rows in `gpu_speed`. The group has one rank: what buckets
and compression save on the way between GPUs is not in these rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from gpu_common import Bench, Check, at_least
from gpu_speed import BATCH, EQUAL, milliseconds, samples_a_second, steps_of
from torch import distributed as dist

from langsteer.training import pytorch_util
from langsteer.training.pytorch_util import data_parallel

BUCKETS_MB = (5, 100)


def encoder_out_of_autocast(bench: Bench) -> list[Check]:
    """Training with the encoder out of bfloat16 against training with it inside."""
    batch = bench.batch(BATCH)
    outside = samples_a_second(steps_of(bench.policy("dp3", "bf16")), batch)
    policy = bench.policy("dp3", "bf16")
    # Without its cache: PyTorch before 2.13 would leave the encoder's weights without gradients.
    inside = torch.autocast(bench.device.type, dtype=torch.bfloat16, cache_enabled=False)
    policy.obs_encoder.forward = inside(policy.obs_encoder.forward)
    ratio = outside / samples_a_second(steps_of(policy), batch)
    return [at_least("encoder out of autocast against inside", ratio, EQUAL, "x", speed=True)]


def weights_rounded_once(bench: Bench) -> list[Check]:
    """Sampling with weights rounded once against weights rounded at each denoising step."""
    obs, times = bench.batch(1)["obs"], []
    for once in (True, False):
        policy = bench.policy("dp3", "bf16").eval().requires_grad_(False)
        if once:
            policy.precision.cast_weights(policy.model)
        times.append(milliseconds(lambda policy=policy: policy.predict_action(obs)))
    return [at_least("weights rounded once", times[1] / times[0], EQUAL, "x", speed=True)]


@contextmanager
def _group_of_one(device: torch.device) -> Iterator[None]:
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def buckets_of_gradients(bench: Bench) -> list[Check]:
    """DDP with our size of buckets against others, and uncompressed against bf16."""
    batch, ours = bench.batch(BATCH), pytorch_util.BUCKET_MB

    def rate(size: int, compression: str = "none") -> float:
        pytorch_util.BUCKET_MB = size
        try:
            policy = bench.policy("dp3", "bf16")
            called = data_parallel(policy, compression=compression)
            return samples_a_second(steps_of(policy, called), batch)
        finally:
            pytorch_util.BUCKET_MB = ours

    with _group_of_one(bench.device):
        usual = rate(ours)
        ratios = {f"buckets of {size} MB": usual / rate(size) for size in BUCKETS_MB}
        ratios["gradients in bf16"] = usual / rate(ours, "bf16")
    return [
        at_least(f"buckets of {ours} MB against {other}", ratio, EQUAL, "x", speed=True)
        for other, ratio in ratios.items()
    ]


CHECKS: dict[str, Callable[[Bench], list[Check]]] = {
    "encoder_precision": encoder_out_of_autocast,
    "rounded_once": weights_rounded_once,
    "buckets": buckets_of_gradients,
}
