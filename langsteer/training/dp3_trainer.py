"""Train DP3 on a store: one process or many, resumed at any step.

Example, on a CPU::

    CALVIN_ZARR_PATH=data/calvin_debug.zarr python scripts/train_dp3.py training=dp3_debug

Every rank runs `train`. What an optimiser step learns from is a function of (seed, epoch, step)
alone (`sampler`, `calvin_dataset`), each window of it weighs the same, and so neither ranks, nor
workers, nor micro-batches, nor interruptions change the run.
"""

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from langsteer.configuration import run_command
from langsteer.errors import UserError, exits_cleanly
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.loading import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from langsteer.progress import progress_bar
from langsteer.training.calvin_dataset import Batch, CalvinData, train_loader
from langsteer.training.checkpoint_util import LATEST, CheckpointManager, provenance
from langsteer.training.config import TrainingConfig
from langsteer.training.distributed import (
    World,
    all_sum,
    any_rank,
    cores_per_rank,
    detect,
    process_group,
)
from langsteer.training.ema_model import EMAModel
from langsteer.training.experiment import Experiment, check_fits, open_experiment
from langsteer.training.loggers import RunLogger, make_wandb, text_logger
from langsteer.training.pytorch_util import (
    Precision,
    choose_device,
    explained_out_of_memory,
    learning_rate,
    make_optimizer,
    step_unless_broken,
    summable,
    to_device,
)
from langsteer.training.sampler import Schedule
from langsteer.training.setup import (
    check_batch_size,
    describe_data,
    describe_policy,
    describe_schedule,
    open_data,
)
from langsteer.training.signals import EXIT_PREEMPTED, StopRequest
from langsteer.training.validation import validate

USAGE = """
Train DP3 on a converted CALVIN dataset.

  export CALVIN_ZARR_PATH=data/calvin_training.zarr
  python scripts/train_dp3.py training=dp3_calvin              # one GPU, or the CPU
  torchrun --nproc-per-node 4 scripts/train_dp3.py             # four GPUs of one machine
  sbatch scripts/slurm_train_dp3.sh                            # a cluster
  python scripts/train_dp3.py training=dp3_calvin training.resume=true

Exit status: 0 finished, 2 bad input, 75 asked to stop by a signal and ready to be resumed.
"""


@dataclass
class Progress:
    """How far a run is, in completed epochs and optimiser steps, and its unlogged numbers.

    ``step_in_epoch`` counts within epoch ``epoch``, ``records`` the lines of the metrics. The sums
    are of losses of single steps since the last record, and since the epoch began.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    records: int = 0
    unlogged_loss: float = 0.0
    unlogged_steps: int = 0
    epoch_loss: float = 0.0


def train(config: Mapping[str, Any]) -> bool:
    """Train as configured (``conf/train.yaml``), in this process's place among its ranks.

    Returns:
        Whether the run is finished; False where a signal asked it to stop and it saved its state.

    Raises:
        UserError: bad input, found before the model is built where possible.
    """
    settings = TrainingConfig.from_dict(config["training"])
    policy_config = DP3Config.from_dict(config["policy"])
    world = detect(os.environ)
    device = choose_device(settings.device, world)
    data = open_data(settings, policy_config)
    schedule = Schedule(
        len(data.train),
        settings.batch_size,
        settings.gradient_accumulation_steps,
        settings.seed,
        world.rank,
        world.world_size,
    )
    check_batch_size(data.store.path, schedule)
    with StopRequest() as stop, process_group(world, device):
        experiment = open_experiment(settings, world)
        with explained_out_of_memory(settings):
            trainer = Trainer(settings, policy_config, data, schedule, world, device, experiment)
            return trainer.run(stop)


class Trainer:
    """One run: everything that a checkpoint holds, and the loop that changes it."""

    def __init__(
        self,
        config: TrainingConfig,
        policy_config: DP3Config,
        data: CalvinData,
        schedule: Schedule,
        world: World,
        device: torch.device,
        experiment: Experiment,
    ) -> None:
        self.config, self.data, self.schedule = config, data, schedule
        self.world, self.device, self.folder = world, device, experiment.folder
        self.log = text_logger(experiment.folder if world.is_main else None)
        self.precision = Precision.choose(config.precision, device)
        torch.manual_seed(config.seed)  # the same initial weights on every rank
        self.policy = DP3(policy_config, data.store.pipeline.to_dict())
        rows = data.train_rows()
        self.policy.set_normalizer(
            Normalizer.fit(policy_config, data.buffer.states[rows], data.buffer.actions[rows])
        )
        if self.policy.language is not None and data.sentences is not None:
            self.policy.language.remember(data.sentences.encoder)
        self.policy.to(device)
        self.ema = EMAModel(self.policy) if config.use_ema else None
        self.optimizer = make_optimizer(self.policy, config)
        self.progress = Progress()
        self.metrics: dict[str, float] = {}
        if experiment.resumed is not None:
            self._restore(experiment.resumed, experiment.checkpoint)
        self._keep_points_on_device()
        if config.compile:
            self.policy.model.compile()
        self.ranks: nn.Module = self.policy
        if world.world_size > 1:
            self.ranks = DistributedDataParallel(self.policy, broadcast_buffers=False)
        self.checkpoints = CheckpointManager(self.folder, config.top_k)
        self.records = self._open_records()
        self._announce(experiment)

    @property
    def evaluated(self) -> DP3:
        """The weights that are validated: the averaged ones, where there are any."""
        model = self.policy if self.ema is None else self.ema.model
        assert isinstance(model, DP3)
        return model

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.schedule.steps_per_epoch * self.config.num_epochs

    def run(self, stop: StopRequest) -> bool:
        """Train to the end, or to a stop; see `train`."""
        with self._bar() as bar:
            while self.progress.epoch < self.config.num_epochs:
                if not self._epoch(stop, bar):
                    self._save_and_leave(stop)
                    return False
        self.checkpoints.wait()
        if self.records is not None:
            self.records.close()
        self.log.info("finished: %s", self.folder / LATEST)
        return True

    def _epoch(self, stop: StopRequest, bar: Any) -> bool:  # noqa: ANN401 - tqdm's type is private
        """The rest of the present epoch; False where a rank was asked to stop."""
        batches = train_loader(
            self.data,
            self.schedule,
            self.progress.epoch,
            self.progress.step_in_epoch,
            self._workers(),
            pin_memory=self.device.type == "cuda",
        )
        self._since, self._windows = time.perf_counter(), 0
        for batch in batches:
            self._micro_batch(batch)
            if not batch["last"]:
                continue
            self._optimizer_step()
            bar.update()
            if self.progress.step % self.config.log_every == 0:
                self._log_step(bar)
            if any_rank(stop.requested):
                return False
        self._end_epoch()
        return True

    def _micro_batch(self, batch: Batch) -> None:
        """Add a micro-batch's gradient, weighted so that each window of the step counts alike."""
        moved = to_device(batch, self.device, self.data.buffer)
        self._windows += len(moved["action"]) * self.world.world_size
        together = batch["last"] or self.ranks is self.policy
        with nullcontext() if together else self.ranks.no_sync():  # type: ignore[operator]
            with self.precision.autocast():
                loss = self.ranks(
                    moved, moved["noise"], moved["timesteps"], withheld=moved.get("withheld")
                )
            # DDP averages over the ranks, hence the factor.
            (loss * (batch["share"] * self.world.world_size)).backward()
        self._step_loss = self._step_loss + summable(loss.detach().double() * batch["share"])

    _step_loss: torch.Tensor | float = 0.0
    _unlogged: torch.Tensor | float = 0.0
    _grad_norm: torch.Tensor | float = 0.0
    _broken: torch.Tensor | bool = False

    def _optimizer_step(self) -> None:
        progress = self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(progress.step)
        self._grad_norm = step_unless_broken(self.optimizer, self.policy)
        self._broken = ~self._grad_norm.isfinite() | self._broken
        if self.ema is not None:
            self.ema.update(self.policy)
        self._unlogged = self._unlogged + self._step_loss
        self._step_loss = 0.0
        progress.step += 1
        progress.step_in_epoch += 1
        progress.unlogged_steps += 1
        if self.device.type == "cpu":
            self._raise_if_broken()

    def _learning_rate(self, step: int) -> float:
        config = self.config
        return learning_rate(step, self.total_steps, config.learning_rate, config.warmup_steps)

    def _raise_if_broken(self) -> None:
        """Asked where the GPU is waited for anyway; no weight was changed meanwhile."""
        if bool(self._broken):
            raise UserError(
                f"the loss or its gradient is not finite near step {self.progress.step} (epoch "
                f"{self.progress.epoch + 1}); the weights were left as they were before. Check the "
                f"data (scripts/visualize_dataset.py --check {self.data.store.path}), or try a "
                "lower training.learning_rate or training.precision=fp32, and go on from the last "
                "checkpoint with training.resume=true"
            )

    def _collect_losses(self) -> None:
        """Add the ranks' losses since the last call to the progress, the same on each rank."""
        self._raise_if_broken()
        local = torch.as_tensor(self._unlogged, dtype=torch.float64).cpu()
        self._unlogged = 0.0
        loss = float(all_sum(local))
        self.progress.unlogged_loss += loss
        self.progress.epoch_loss += loss

    def _log_step(self, bar: Any) -> None:  # noqa: ANN401 - tqdm's type is private
        self._collect_losses()
        progress, now = self.progress, time.perf_counter()
        loss = progress.unlogged_loss / progress.unlogged_steps
        rate = self._windows / max(now - self._since, 1e-9)
        self._since, self._windows = now, 0
        progress.unlogged_loss, progress.unlogged_steps = 0.0, 0
        bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} samples/s", refresh=False)
        self._record(
            {
                "loss": loss,
                "learning_rate": self._learning_rate(progress.step - 1),
                "gradient_norm": float(self._grad_norm),
                "samples_per_second": rate,
            }
        )

    def _record(self, numbers: Mapping[str, float]) -> None:
        self.progress.records += 1
        if self.records is not None:
            step, epoch = self.progress.step, self.progress.step / self.schedule.steps_per_epoch
            self.records.metrics({"step": step, "epoch": epoch, **numbers})

    def _end_epoch(self) -> None:
        """Validate and save where it is due, and go to the next epoch."""
        self._collect_losses()
        progress, config = self.progress, self.config
        done = progress.epoch + 1
        train_loss = progress.epoch_loss / self.schedule.steps_per_epoch
        saves = done % config.checkpoint_every == 0 or done == config.num_epochs
        self.metrics = {"train_loss": train_loss}
        if saves or done % config.val_every == 0:
            self.metrics |= validate(
                self.evaluated, self.data, config.val_action_samples, self.world, self.precision
            )
        self._record(self.metrics)
        self.log.info(
            "epoch %d/%d step %d: %s",
            done,
            config.num_epochs,
            progress.step,
            ", ".join(f"{name} {value:.5g}" for name, value in self.metrics.items()),
        )
        progress.epoch, progress.step_in_epoch, progress.epoch_loss = done, 0, 0.0
        self.checkpoints.check()
        if saves:
            payload = self._payload()
            if self.world.is_main:
                self.checkpoints.save_epoch(payload, done, self.metrics.get("val_loss"))
        if self.records is not None and "val_loss" in self.metrics:
            self.records.draw_curves()

    def _save_and_leave(self, stop: StopRequest) -> None:
        begun = time.perf_counter()
        self._collect_losses()
        payload = self._payload()
        if self.world.is_main:
            self.checkpoints.save_latest(payload)
            self.checkpoints.wait()
        if self.records is not None:
            self.records.close()
        self.log.info(
            "%s: saved step %d to %s in %.1f s; training.resume=true goes on there",
            stop.signal_name or "another rank was asked to stop",
            self.progress.step,
            self.folder / LATEST,
            time.perf_counter() - begun,
        )

    def _payload(self) -> dict[str, Any]:
        """All that a checkpoint holds."""
        random = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "config": {"policy": self.policy.config.to_dict(), "training": asdict(self.config)},
            "pipeline": self.policy.pipeline,
            "data": {
                "windows": self.data.fingerprint(),
                "effective_batch_size": self.schedule.effective_batch_size,
            },
            "model": self.policy.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"step": self.progress.step, "total_steps": self.total_steps},
            "progress": {
                **asdict(self.progress),
                "ema_updates": 0 if self.ema is None else self.ema.updates,
            },
            "rng": random,
            "metrics": self.metrics,
            "provenance": provenance(),
        }

    def _restore(self, payload: dict[str, Any], path: Path | None) -> None:
        check_fits(path, payload, self._payload())
        self.policy.load_state_dict(payload["model"])
        self.optimizer.load_state_dict(payload["optimizer"])
        if self.ema is not None:
            self.ema.model.load_state_dict(payload["ema"])
            self.ema.updates = payload["progress"]["ema_updates"]
        names = [field.name for field in fields(Progress)]
        self.progress = Progress(**{name: payload["progress"][name] for name in names})
        self.metrics = payload["metrics"]
        torch.set_rng_state(payload["rng"]["torch"])
        if "cuda" in payload["rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(payload["rng"]["cuda"], self.device)

    def _keep_points_on_device(self) -> None:
        buffer, wanted = self.data.buffer, self.config.points_on_device
        if wanted == "true" or (wanted == "auto" and buffer.fits(self.device)):
            buffer.move_points_to(self.device)

    def _workers(self) -> int:
        """Loader processes: as configured, at most this rank's share of the cores."""
        return min(self.config.num_workers, max(0, cores_per_rank(os.environ) - 1))

    def _bar(self) -> Any:  # noqa: ANN401 - tqdm's type is private
        bar = progress_bar(
            self.total_steps,
            "training",
            "step",
            initial=self.progress.step,
            disable=not self.world.is_main,
        )
        return bar

    def _open_records(self) -> RunLogger | None:
        if not self.world.is_main:
            return None
        settings = {"policy": self.policy.config.to_dict(), "training": asdict(self.config)}
        wandb = make_wandb(self.config.wandb, self.folder, settings, self.log)
        return RunLogger(self.folder, self.progress.records, wandb)

    def _announce(self, experiment: Experiment) -> None:
        """Say what this run is before it begins."""
        if experiment.checkpoint is not None:
            self.log.info(
                "resuming %s at epoch %d, step %d",
                experiment.checkpoint,
                self.progress.epoch,
                self.progress.step,
            )
        how = f"{self.world}, {self.device}, {self.precision}, fused AdamW"
        lines = [
            f"experiment {self.folder}",
            how + (", compiled" if self.config.compile else ""),
            describe_policy(self.policy),
            describe_data(self.data),
            f"{describe_schedule(self.schedule)}, {self.total_steps} in all; "
            f"{self._workers()} loader workers",
        ]
        for line in lines:
            self.log.info(line)
        if not len(self.data.val) and self.world.is_main:
            self.log.warning("no validation episodes: the newest checkpoints are kept")


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/train_dp3.py`` and ``langsteer-train``."""
    run_command("train", USAGE, _train_and_exit)


def _train_and_exit(config: dict[str, Any]) -> None:
    # Rank 0 answers for all: a rank whose status is not 0 has the others killed by srun, rank 0
    # perhaps in the middle of its checkpoint.
    if not train(config) and detect(os.environ).is_main:
        raise SystemExit(EXIT_PREEMPTED)
