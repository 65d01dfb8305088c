"""A checkpoint of a tiny policy with random weights, and the commands that use it."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.sentences import make_encoder

ROOT = Path(__file__).resolve().parents[2]
TINY = DP3Config(
    down_dims=(16, 32), blocks_per_stage=1, point_widths=(8, 16), encoder_output_dim=8,
    diffusion_step_embed_dim=16, num_inference_steps=2,
)  # fmt: skip


def make_checkpoint(path: Path, pipeline: ObservationPipeline, config: DP3Config = TINY) -> Path:
    torch.manual_seed(0)
    policy = DP3(config, pipeline.to_dict())
    random = np.random.default_rng(0)
    states, actions = random.uniform(-1, 1, (64, 15)), random.uniform(-1, 1, (64, 7))
    policy.set_normalizer(Normalizer.fit(config, states, actions))
    if policy.language is not None:
        policy.language.remember(make_encoder(config.language_encoder))
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = {
        "format": "langsteer-checkpoint",
        "version": 1,
        "config": {"policy": config.to_dict()},
        "pipeline": pipeline.to_dict(),
        "model": policy.state_dict(),
        "ema": None,
    }
    torch.save(payload, path)
    return path


@pytest.fixture(scope="session")
def checkpoint_factory() -> Callable[..., Path]:
    """`make_checkpoint`."""
    return make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that sees 64 points and knows nothing."""
    folder = tmp_path_factory.mktemp("checkpoints") / "random"
    return make_checkpoint(folder / "latest.ckpt", ObservationPipeline(n_points=64))


@pytest.fixture(scope="session")
def spoken_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of a policy that is told sentences and knows nothing either."""
    spoken = dataclasses.replace(
        TINY, language=True, language_encoder="hashed", language_guidance=1.5
    )
    path = tmp_path_factory.mktemp("checkpoints") / "spoken" / "latest.ckpt"
    return make_checkpoint(path, ObservationPipeline(n_points=64), spoken)


@pytest.fixture
def start_command(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Begin one of ``scripts/`` in a folder of its own."""

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def run_command(start_command: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Run one of ``scripts/``, check its exit status and return what it printed."""

    def run(script: str, *arguments: str, status: int = 0) -> str:
        process = start_command(script, *arguments)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == status, output
        return output

    return run
