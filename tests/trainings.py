"""Run the real trainer on a store, in this process or in processes of its own."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import train

ROOT = Path(__file__).resolve().parents[1]


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without any launcher's variables."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return ours | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | extra


class Training:
    """Runs the trainer for one store, with the tiny policy."""

    def __init__(self, store: Path, folder: Path, defaults: list[str]) -> None:
        self.store, self.folder, self.defaults = store, folder, defaults

    def command(self, *overrides: str, ranks: int = 1) -> list[str]:
        """The command line; with more ranks through torchrun on loopback."""
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
            launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        script = str(ROOT / "scripts" / "train_dp3.py")
        return [
            *launcher,
            script,
            *self.defaults,
            f"training.checkpoint_dir={self.folder}",
            *overrides,
        ]

    def here(self, *overrides: str, status: int = 0) -> str:
        """As `run`, within this process: much faster, for what no other process is needed."""
        values = [*self.defaults, f"training.checkpoint_dir={self.folder}", *overrides]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                found = self._train_here(values)
            except UserError as error:
                print(f"error: {error}")
                found = 2
        assert found == status, output.getvalue()
        return output.getvalue()

    def _train_here(self, overrides: list[str]) -> int:
        config = compose("train", overrides)
        if config["training"]["dataset"]["zarr_path"] is None:
            config["training"]["dataset"]["zarr_path"] = str(self.store)
        return 0 if train(RunConfig.from_dict(config)) else 75

    def environment(self, **extra: str) -> dict[str, str]:
        """This process's, without any launcher's variables, for the store."""
        return clean_environment() | {"CALVIN_ZARR_PATH": str(self.store)} | extra

    def start(self, *overrides: str, ranks: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Begin a training."""
        return self._popen(self.command(*overrides, ranks=ranks), environment)

    def _popen(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.environment(**environment) | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *overrides: str, ranks: int = 1, status: int = 0, **environment: str) -> str:
        """Train to the end, check the exit status, and return all that was printed."""
        process = self.start(*overrides, ranks=ranks, **environment)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == status, output
        return output

    def start_patched(
        self, patch: str, *overrides: str, **environment: str
    ) -> subprocess.Popen[str]:
        """Begin a training in a process that runs the statements ``patch`` before."""
        code = f"{patch}\nfrom langsteer.train_command import main\nmain()"
        arguments = self.command(*overrides)[2:]
        return self._popen([sys.executable, "-c", code, *arguments], environment)

    def start_ranks(self, *overrides: str, ranks: int = 2) -> list[subprocess.Popen[str]]:
        """Begin one training as SLURM does: a task for each rank, and nobody who watches them."""
        port = free_port()
        tasks = [self.slurm_task(rank, ranks, port) for rank in range(ranks)]
        return [self._popen(self.command(*overrides), task) for task in tasks]

    def slurm_task(self, rank: int, ranks: int, port: int) -> dict[str, str]:
        """The environment of a task of a SLURM step on this machine."""
        return {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": str(ranks),
            "SLURM_STEP_ID": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }

    def latest(self, experiment: str) -> dict[str, Any]:
        """The content of an experiment's newest checkpoint."""
        return torch.load(self.folder / experiment / "latest.ckpt", weights_only=True)


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
