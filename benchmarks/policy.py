"""Time of a training step and of a prediction, against the reference's arithmetic.

Run on all cores, from the repository's root::

    python benchmarks/policy.py                       # against the same network done plainly
    python benchmarks/policy.py --reference CHECKOUT  # against the reference implementation itself

"Plainly" is library convolutions and products, gradients through every point, modulations computed
anew at each denoising step, AdamW without fusion: what the reference does. ``CHECKOUT`` is a folder
that holds its package ``diffusion_policy_3d`` (it needs einops and termcolor installed).
"""

import argparse
import io
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from langsteer.configuration import compose
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer, convolution, encoder, products

POINTS = 2048
ADAMW = {"lr": 1e-4, "betas": (0.95, 0.999), "weight_decay": 1e-6}


def config_of(name: str) -> DP3Config:
    """The config that ``policy=name`` stands for."""
    return DP3Config.from_dict(compose("train", [f"policy={name}"])["policy"])


def batch_of(size: int) -> dict:
    """A batch of random clouds of the table's extent."""
    return {
        "obs": {
            "point_cloud": torch.rand(size, 2, POINTS, 3) - 0.5,
            "agent_pos": torch.randn(size, 2, 15).clamp(-2, 2),
        },
        "action": torch.rand(size, 16, 7) * 2 - 1,
    }


def ours(name: str) -> DP3:
    """Our policy with random weights."""
    policy = DP3(config_of(name))
    generator = np.random.default_rng(0)
    robot_obs, actions = generator.normal(size=(99, 15)), generator.uniform(-1, 1, (99, 7))
    policy.set_normalizer(Normalizer.fit(policy.config, robot_obs, actions))
    return policy


class Plain(DP3):
    """The same network, computed as the reference computes it."""

    def compute_loss(self, batch: dict, **kwargs: object) -> Tensor:  # type: ignore[override]
        """Loss, by library calls."""
        with _library_calls():
            return super().compute_loss(batch)

    def predict_action(self, obs: dict, **kwargs: object) -> dict:  # type: ignore[override]
        """Prediction, by library calls, with modulations anew at each step."""
        with _library_calls():
            return super().predict_action(obs)

    def _planned(self, condition: Tensor) -> list:
        def lazily() -> Iterator:
            for plan in self.diffusion.steps():
                timesteps = torch.full((len(condition),), plan.timestep)
                yield plan, self.model.modulations(timesteps, condition)

        return lazily()  # type: ignore[return-value]


@contextmanager
def _library_calls() -> Iterator[None]:
    before = convolution.multiplies, products.uses_onednn, encoder.PointEncoder.forward
    convolution.multiplies = products.uses_onednn = lambda *tensors: False
    encoder.PointEncoder.forward = lambda self, points: self.final_projection(  # type: ignore
        self.mlp(points).amax(dim=1)
    )
    try:
        yield
    finally:
        convolution.multiplies, products.uses_onednn, encoder.PointEncoder.forward = before  # type: ignore


def plain(name: str) -> DP3:
    """Our network computed plainly."""
    policy = Plain(config_of(name))
    policy.load_state_dict(ours(name).state_dict())
    return policy


def reference(name: str, checkout: Path) -> nn.Module:
    """The reference implementation's policy, with modules that it only imports stubbed."""
    from diffusers import DDIMScheduler  # before the stubs, of which it asks where they lie

    sys.path.insert(0, str(checkout))
    for stub in ("pytorch3d", "pytorch3d.ops", "torchvision"):
        sys.modules.setdefault(stub, types.ModuleType(stub))
    sys.modules["pytorch3d"].ops = sys.modules["pytorch3d.ops"]  # type: ignore[attr-defined]
    from diffusion_policy_3d.model.common.normalizer import LinearNormalizer
    from diffusion_policy_3d.policy import dp3, simple_dp3
    from omegaconf import OmegaConf

    kind = dp3.DP3 if name == "dp3" else simple_dp3.SimpleDP3
    scheduler = DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="sample",
    )
    encoder_cfg = {"in_channels": 3, "out_channels": 64, "use_layernorm": True}
    encoder_cfg |= {"final_norm": "layernorm", "normal_channel": False}
    shapes = {
        "obs": {"point_cloud": {"shape": [POINTS, 3]}, "agent_pos": {"shape": [15]}},
        "action": {"shape": [7]},
    }
    with redirect_stdout(io.StringIO()):  # it prints its parameters
        policy = kind(
            shape_meta=OmegaConf.create(shapes),
            noise_scheduler=scheduler,
            horizon=16,
            n_action_steps=8,
            n_obs_steps=2,
            num_inference_steps=10,
            diffusion_step_embed_dim=128,
            down_dims=config_of(name).down_dims,
            encoder_output_dim=64,
            pointcloud_encoder_cfg=OmegaConf.create(encoder_cfg),
        )
    normalizer = LinearNormalizer()
    batch = batch_of(4)
    normalizer.fit({**batch["obs"], "action": batch["action"]})
    policy.set_normalizer(normalizer)
    return policy


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least time of ``repeats`` after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def train_step(policy: nn.Module, size: int, fused: bool) -> float:
    """Seconds of a training step."""
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=fused, **ADAMW)
    batch = batch_of(size)

    def step() -> None:
        loss = policy.compute_loss(batch)
        (loss[0] if isinstance(loss, tuple) else loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    return seconds(step, repeats=2 if size > 16 else 3)


def predict(policy: nn.Module) -> float:
    """Seconds of a prediction for one observation, 10 steps."""
    obs = batch_of(1)["obs"]
    with torch.no_grad():
        return seconds(lambda: policy.predict_action(obs), repeats=5)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="folder with package diffusion_policy_3d")
    parser.add_argument("--policies", nargs="+", default=["simple_dp3", "dp3"])
    arguments = parser.parse_args()
    against = "reference" if arguments.reference else "plain"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {POINTS} points")
    print(f"{'':28}{against:>12}{'langsteer':>12}{'ratio':>8}")
    for name in arguments.policies:
        torch.manual_seed(0)
        other = reference(name, arguments.reference) if arguments.reference else plain(name)
        cases: list[tuple[str, Callable[[nn.Module, bool], float]]] = [
            ("train step, batch 16", lambda policy, fused: train_step(policy, 16, fused)),
            ("train step, batch 64", lambda policy, fused: train_step(policy, 64, fused)),
            ("prediction, 10 steps", lambda policy, fused: predict(policy)),
        ]
        mine = ours(name)
        for case, measure in cases:
            theirs, own = measure(other, False), measure(mine, True)
            row = f"{name} {case}"
            print(f"{row:32}{theirs * 1e3:8.0f}{own * 1e3:12.0f}{theirs / own:8.1f}", flush=True)


if __name__ == "__main__":
    main()
