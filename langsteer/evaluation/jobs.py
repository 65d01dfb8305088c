"""What all evaluations share: agent and environment of a process, and the folder of a run."""

import hashlib
import json
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.policies.agent import Agent, load_agent
from langsteer.policies.loading import read_checkpoint
from langsteer.policies.precision import PRECISIONS, Precision
from langsteer.resumable import Result, settle_settings

Settings = Mapping[str, Any]
SETTINGS = "settings.json"


class Stage:
    """What a process needs for all its pieces of work: the agent, the environment, the settings.

    Raises:
        UserError: a checkpoint whose clouds the environment cannot make.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.agent = make_agent(settings)
        self.env = open_env(settings["env"], self.agent)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def make_agent(settings: Settings) -> Agent:
    """The agent of ``policy.ckpt_path`` on ``device``."""
    policy = settings["policy"]
    return load_agent(
        policy["ckpt_path"],
        device_name(settings["device"]),
        policy["use_ema"],
        settings["precision"],
    )


def open_env(env: Mapping[str, Any], agent: Agent) -> CalvinEnv:
    """The environment of a configuration's ``env``, which makes the clouds that an agent sees.

    Raises:
        UserError: it cannot make them.
    """
    if agent.policy.config.use_pc_color and env["renderer"] == "depth":
        raise UserError(
            "this policy sees coloured points, and renderer 'depth' draws none; set "
            "env.renderer=egl (with a GPU) or env.renderer=tiny"
        )
    opened = CalvinEnv(
        scene=env["scene"],
        assets_path=env["assets_path"],
        renderer=env["renderer"],
        pipeline=agent.pipeline,
        led_reset=env["led_reset"],
    )
    agent.policy.check_pipeline(opened.pipeline)
    return opened


def precision_name(config: Settings) -> str:
    """The arithmetic that ``precision`` stands for on ``device``; results name it.

    Raises:
        UserError: there is no such device or precision.
    """
    wanted, device = config["precision"], device_name(config["device"])
    if wanted not in PRECISIONS:
        raise UserError(f"precision={wanted}: expected one of {', '.join(PRECISIONS)}")
    return Precision.choose(wanted, torch.device(device)).name


def device_name(wanted: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` is the GPU where there is one."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={wanted}: expected auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch finds no GPU here; use device=cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


Job = Callable[[Stage, int, Path], Result]
"""Do piece ``number`` and return its result in plain values; other files go into the folder."""


class StageWorker:
    """Does pieces of a run on a stage of its own."""

    def __init__(self, job: Job, settings: Settings, folder: Path) -> None:
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # processes that each use all cores slow each other down
        self._job, self._folder, self._stage = job, folder, Stage(settings)

    def do(self, number: int) -> Result:
        """Piece ``number``."""
        return self._job(self._stage, number, self._folder)

    def close(self) -> None:
        """Close the environment."""
        self._stage.close()


def prepare_folder(folder: Path, settings: Settings) -> None:
    """Make a run's folder, or see that it holds a run of the same settings, which then goes on.

    Raises:
        UserError: it holds a run of other settings; they are listed.
    """
    settle_settings(folder / SETTINGS, settings, "choose another output_dir, or remove that folder")


def run_name(checkpoint: str | Path, settings: Settings, *what: str) -> str:
    """``<experiment>_<checkpoint>_<what>_<digest>``; the digest differs for other settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([Path(checkpoint).parent.name, Path(checkpoint).stem, *what, digest])


def checkpoint_identity(path: str | Path | None) -> dict[str, Any]:
    """What tells a checkpoint from another that had the same name before: size and content's end.

    A checkpoint's end holds the checksums of all its tensors.

    Args:
        path: ``policy.ckpt_path``.

    Raises:
        UserError: None, or as `read_checkpoint`.
    """
    if path is None:
        raise UserError("no checkpoint: set policy.ckpt_path=outputs/checkpoints/.../latest.ckpt")
    path = Path(path)
    read_checkpoint(path, mmap=True)  # bad input is found before a folder is made for it
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, min(archive.start_dir, size - 65536)))
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    return {"path": str(path), "bytes": size, "sha256_of_end": digest}
