"""What the checks of `gpu.py` share: a synthetic store, policies, batches and trainings.

Example::

    bench = Bench(torch.device("cpu"), Path("/tmp/x"), tiny=True, is_fast=False)
    bench.policy("simple_dp3", "bf16")
"""

import contextlib
import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stores import write_store
from langsteer.configuration import compose
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.precision import Precision
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import train

TINY = [
    "policy=simple_dp3",
    "policy.down_dims=[32,64]",
    "policy.point_widths=[16,32]",
    "policy.encoder_output_dim=16",
    "policy.diffusion_step_embed_dim=32",
]


@dataclass(frozen=True)
class Check:
    """What one check found; ``speed`` where its limit holds for a certain GPU only."""

    name: str
    measured: str
    limit: str
    passed: bool
    speed: bool = False


def at_most(name: str, found: float, limit: float, unit: str = "", speed: bool = False) -> Check:
    """A check of a number; one that is not finite fails."""
    return Check(name, f"{found:.3g}{unit}", f"<= {limit:g}{unit}", found <= limit, speed)


def at_least(name: str, found: float, limit: float, unit: str = "", speed: bool = False) -> Check:
    """A check of a number; one that is not finite fails."""
    return Check(name, f"{found:.4g}{unit}", f">= {limit:g}{unit}", found >= limit, speed)


@dataclass(frozen=True)
class Bench:
    """Where and on what the checks run.

    Attributes:
        device: that is checked against the CPU.
        folder: for stores and experiments.
        tiny: a network and clouds that a CPU learns from in seconds.
        is_fast: whether limits of speed bind.
    """

    device: torch.device
    folder: Path
    tiny: bool
    is_fast: bool

    @property
    def points(self) -> int:
        """Points of a cloud."""
        return 64 if self.tiny else 2048

    def network(self, policy: str) -> list[str]:
        """Keys that choose a network."""
        return TINY if self.tiny else [f"policy={policy}"]

    def policy(self, name: str, precision: str, device: torch.device | None = None) -> DP3:
        """A policy with the same weights each time."""
        torch.manual_seed(0)
        made = DP3(DP3Config.from_dict(compose("train", self.network(name))["policy"]))
        random = np.random.default_rng(0)
        limits = random.normal(size=(99, 15)), random.uniform(-1, 1, (99, 7))
        made.set_normalizer(Normalizer.fit(made.config, *limits))
        device = device or self.device
        made.to(device).precision = Precision(precision)
        return made

    def batch(self, size: int, device: torch.device | None = None) -> dict[str, Any]:
        """The same random batch each time, with its noise."""
        random = torch.Generator().manual_seed(size)
        obs = {
            "point_cloud": torch.rand(size, 2, self.points, 3, generator=random) - 0.5,
            "agent_pos": torch.randn(size, 2, 15, generator=random).clamp(-2, 2),
        }
        made = {
            "action": torch.rand(size, 16, 7, generator=random) * 2 - 1,
            "noise": torch.randn(size, 16, 7, generator=random),
            "timesteps": torch.randint(100, (size,), generator=random),
        }
        device = device or self.device
        moved: dict[str, Any] = {key: value.to(device) for key, value in made.items()}
        return {**moved, "obs": {key: value.to(device) for key, value in obs.items()}}

    @cached_property
    def store(self) -> Path:
        """Eighty episodes whose actions follow from state and cloud, and eight of validation."""
        random = np.random.default_rng(0)
        lengths = np.full(12 if self.tiny else 88, 24 if self.tiny else 64)
        ends = np.cumsum(lengths)
        states = random.uniform(-1, 1, (ends[-1], 15)).astype(np.float32)
        clouds = random.uniform(-0.4, 0.4, (ends[-1], self.points, 6)).astype(np.float32)
        clouds[..., 3:] = np.abs(clouds[..., 3:])
        actions = np.tanh(states[:, :7] * 2 + clouds[:, :7, 0]).astype(np.float32)
        held_out = len(lengths) // 10
        table = EpisodeTable(
            split=np.array(["training"] * (len(lengths) - held_out) + ["validation"] * held_out),
            task=np.array(["open_drawer"] * len(lengths)),
            instruction=np.array(["open the drawer"] * len(lengths)),
            first_frame=ends - lengths,
            group=np.arange(len(lengths)),
        )
        path = self.folder / "store.zarr"
        arrays = {"point_cloud": clouds, "state": states, "action": actions}
        write_store(path, arrays, ends, table, ObservationPipeline(n_points=self.points), 64)
        return path

    def train(self, name: str, *overrides: str, policy: str = "simple_dp3") -> tuple[bool, str]:
        """A training of this process: whether it finished, and what it said."""
        keys = [
            "training=dp3_debug",
            *self.network(policy),
            f"training.device={self.device.type}",
            f"training.checkpoint_dir={self.folder}",
            f"training.experiment_name={name}",
            "training.batch_size=32",
            "training.num_workers=0",
            "training.learning_rate=1e-3",
            "training.val_action_samples=0",
            "training.val_every=1000",
            "training.checkpoint_every=1000",
            "training.log_every=1",
            *overrides,
        ]
        config = compose("train", keys)
        config["training"]["dataset"]["zarr_path"] = str(self.store)
        os.environ["WANDB_MODE"] = "disabled"
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            finished = train(RunConfig.from_dict(config))
        return finished, said.getvalue()

    def latest(self, name: str) -> dict[str, Any]:
        """The newest checkpoint of a training."""
        loaded: dict[str, Any] = torch.load(self.folder / name / "latest.ckpt", weights_only=True)
        return loaded
