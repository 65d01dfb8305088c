"""Train DP3 on a store: one process or many, resumed at any step.

Example, on a CPU::

    CALVIN_ZARR_PATH=data/calvin_debug.zarr python scripts/train_dp3.py training=dp3_debug

Every rank runs `train`. A step's samples and noise are a function of (seed, epoch, step) alone
(`sampler`, `calvin_dataset`), and each window of a step weighs the same. So neither ranks, workers,
micro-batches nor interruptions change the run.
"""

import gc
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import partial

import torch

from langsteer.policies.cpu_threads import choose_threads, describe_place
from langsteer.policies.dp3 import DP3Config
from langsteer.progress import ProgressBar, progress_bar, say_doing
from langsteer.training.attendance import arrived
from langsteer.training.calvin_dataset import Batch, CalvinData, train_loader
from langsteer.training.checkpoint_reading import LATEST
from langsteer.training.checkpoint_util import CheckpointManager
from langsteer.training.config import RunConfig, TrainingConfig
from langsteer.training.consensus import Vote
from langsteer.training.disk import check_disk, checkpoint_bytes, gigabytes
from langsteer.training.distributed import process_group
from langsteer.training.experiment import Experiment, held, open_experiment
from langsteer.training.films import Filmer, Films
from langsteer.training.learner import Learner
from langsteer.training.loggers import RunLogger, make_wandb, text_logger
from langsteer.training.pytorch_util import (
    choose_device,
    explained_out_of_memory,
    make_deterministic,
    threads_restored,
)
from langsteer.training.run_state import Progress, RunState
from langsteer.training.sampler import Schedule
from langsteer.training.setup import (
    describe_data,
    describe_plan,
    describe_policy,
    describe_schedule,
    open_inputs,
    warn_of_warmup,
)
from langsteer.training.signals import Stopped, StopRequest
from langsteer.training.validation import validate
from langsteer.training.world import World, cores_per_rank, detect, gpus_of_job


def train(config: RunConfig, filmer: Filmer | None = None) -> bool:
    """Train as configured, in this process's place among its ranks.

    Args:
        config: of the run.
        filmer: films the policy at each checkpoint; needed on the main rank alone.

    Returns:
        Whether the run is finished; False if a signal stopped it and its state is saved.

    Raises:
        UserError: bad input; most of it is found before the model is built.
    """
    settings, policy_config = config.training, config.policy
    world = detect(os.environ)
    if settings.deterministic:
        make_deterministic(os.environ)
    device = choose_device(settings.device, world, gpus_of_job(os.environ))
    data, schedule = open_inputs(settings, policy_config, world.rank, world.world_size)

    def run() -> bool:  # a function of its own, so that the trainer is gone when it returns
        experiment = open_experiment(settings, world)
        with held(experiment, world), explained_out_of_memory(settings):
            disk = check_disk(settings, policy_config, experiment.folder) if world.is_main else ""
            trainer = Trainer(
                settings, policy_config, data, schedule, world, device, experiment, filmer
            )
            trainer.log.info(disk)
            return trainer.run(stop)

    with StopRequest() as stop, threads_restored(), process_group(world, device, settings.timeout):
        finished = run()
        # gloo may abort a process whose DDP outlives its group. The explanation of a stop holds
        # the trainer and so DDP, which lives on in cycles.
        stop.explain = None
        gc.collect()
    return finished


class Trainer:
    """One run: the loop around its optimiser steps, with validation, checkpoints and logs."""

    def __init__(
        self,
        config: TrainingConfig,
        policy_config: DP3Config,
        data: CalvinData,
        schedule: Schedule,
        world: World,
        device: torch.device,
        experiment: Experiment,
        filmer: Filmer | None = None,
    ) -> None:
        self.config, self.data, self.schedule = config, data, schedule
        self.world, self.device, self.folder = world, device, experiment.folder
        self.log = text_logger(experiment.folder if world.is_main else None)
        self.state = RunState(config, policy_config, data, schedule, device)
        choose_threads(self.state.policy, device, os.environ)
        # On a resume, weights, optimiser, generators and progress become those of the checkpoint
        # before anything reads them: batches and records below go on from `progress`.
        if experiment.resumed is not None:
            self.state.restore(experiment.resumed, experiment.checkpoint)
        elif config.init_from is not None:
            self.state.begin_from(config.init_from)
        self._keep_points_on_device()
        if config.compile:  # after the copy to average was made
            for policy in {self.state.policy, self.state.validated_policy}:
                policy.compile_parts()
        self.learner = Learner(self.state, world)
        self.vote = Vote(world)
        self.checkpoints = CheckpointManager(self.folder, config.top_k)
        self.records = self._open_records(experiment)
        self.films = (
            Films(filmer, self.folder, self.records, self.log) if filmer and self.records else None
        )
        self._saved_step = None if experiment.resumed is None else self.progress.step
        self._announce(experiment)

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.state.progress

    def run(self, stop: StopRequest) -> bool:
        """Train to the end, or to a stop; see `train`."""
        size = checkpoint_bytes(self.state.policy.config, self.config.use_ema)
        stop.explain = partial(self._what_a_stop_does, gigabytes(size))
        if self.progress.epoch >= self.config.num_epochs:
            self.log.info(
                "all %d epochs are done; a greater training.num_epochs goes on", self.progress.epoch
            )
        try:
            # One iterator of batches serves all epochs, so that the loader reads ahead of each
            # epoch's end.
            with self._bar() as bar, closing(self._batches()) as batches:
                while self.progress.epoch < self.config.num_epochs:
                    self._epoch(batches, stop, bar)
                # The last checkpoint is still being written; its failure must be told.
                say_doing(bar, "saving")
                self.checkpoints.wait()
                if self.world.is_main:
                    self.checkpoints.settle()
        except Stopped:
            self._save_and_leave(stop)
            return False
        if self.records is not None:
            self.records.close()
        self.log.info("finished: %s", self.folder / LATEST)
        return True

    def _epoch(self, batches: Iterator[Batch], stop: StopRequest, bar: ProgressBar) -> None:
        """The rest of the present epoch; raises `Stopped` once a rank was asked to stop.

        After a stop in its validation the epoch has no steps left. A resume then validates it.
        """
        self._since, self._windows = time.perf_counter(), 0
        # A resumed epoch goes on in its middle. The batches do too, from the same progress.
        while self.progress.step_in_epoch < self.schedule.steps_per_epoch:
            batch = next(batches)
            arrived()
            # Gradients add up over the step's micro-batches. Only the last one makes the step.
            self._windows += self.learner.add(batch)
            if not batch["last"]:
                continue
            self.learner.step()
            bar.update()
            # Reading the loss waits for the GPU, so it happens every `log_every` steps only.
            if self.progress.step % self.config.log_every == 0:
                self._log_step(bar)
            # All ranks must leave after the same step, or the others would wait for gradients.
            # So a signal is put to the vote, between two steps: the state is whole there.
            if self.vote(stop.requested):
                raise Stopped
        self._end_epoch(stop, bar)

    def _log_step(self, bar: ProgressBar) -> None:
        self.learner.collect_losses()
        progress, now = self.progress, time.perf_counter()
        loss = progress.unlogged_loss / progress.unlogged_steps
        rate = self._windows / max(now - self._since, 1e-9)
        self._since, self._windows = now, 0
        progress.unlogged_loss, progress.unlogged_steps = 0.0, 0
        bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} samples/s", refresh=False)
        self._record(
            {
                "loss": loss,
                "learning_rate": self.learner.learning_rate(progress.step - 1),
                "gradient_norm": self.learner.gradient_norm,
                "samples_per_second": rate,
            }
        )

    def _record(self, numbers: Mapping[str, float]) -> None:
        self.progress.records += 1
        if self.records is not None:
            step, epoch = self.progress.step, self.progress.step / self.schedule.steps_per_epoch
            self.records.metrics({"step": step, "epoch": epoch, **numbers})

    def _end_epoch(self, stop: StopRequest, bar: ProgressBar) -> None:
        """Validate and save if due, and go to the next epoch."""
        # The ranks' losses come together here, so every rank has the same numbers to save.
        self.learner.collect_losses()
        progress, config = self.progress, self.config
        done = progress.epoch + 1
        # A saved epoch is validated too: its loss decides which checkpoints stay.
        saves = done % config.checkpoint_every == 0 or done == config.num_epochs
        metrics = {"train_loss": progress.epoch_loss / self.schedule.steps_per_epoch}
        if saves or done % config.val_every == 0:
            say_doing(bar, "validating")
            metrics |= self._validate(stop)
        self.state.metrics = metrics
        self._record(metrics)
        self.log.info(
            "epoch %d/%d step %d: %s",
            done,
            config.num_epochs,
            progress.step,
            ", ".join(f"{name} {value:.5g}" for name, value in metrics.items()),
        )
        # The progress moves on before the checkpoint takes it: a resume begins the next epoch.
        progress.epoch, progress.step_in_epoch, progress.epoch_loss = done, 0, 0.0
        # A failed write in the background stops the run now, not after days without checkpoints.
        self.checkpoints.check()
        if saves:
            say_doing(bar, "saving")
            # The payload is copied at once; its file is written while the next epoch runs.
            payload = self.state.payload()
            if self.records is not None:
                self.records.sync()  # or a power loss leaves fewer than the checkpoint counts
                self.checkpoints.save_epoch(payload, done, metrics.get("val_loss"))
            self._saved_step = progress.step
        if self.records is not None and "val_loss" in metrics:
            self.records.draw_curves()
        if saves and self.films and self.films.go_on:
            say_doing(bar, "filming")
            self.films.take(self.state.validated_policy, done, progress.step, stop)
        say_doing(bar, "training")

    def _validate(self, stop: StopRequest) -> dict[str, float]:
        count = self.config.val_action_samples
        return validate(self.state.validated_policy, self.data, count, self.world, stop)

    def _what_a_stop_does(self, size: str, signal_name: str) -> str:
        """The line for a person at the terminal; saving a large policy takes minutes.

        Rank 0 speaks for all.
        """
        if not self.world.is_main:
            return ""
        progress = self.progress
        in_epoch = progress.step_in_epoch < self.schedule.steps_per_epoch
        trains = in_epoch and progress.epoch < self.config.num_epochs
        last = f"step {progress.step + 1}" if trains else f"after step {progress.step}"
        doing = f"finishing {last}, then saving {size} to {self.folder}"
        if signal_name != "SIGINT":
            return doing
        since = (
            "the whole run" if self._saved_step is None else f"all since step {self._saved_step}"
        )
        return f"{doing}; press Ctrl-C again to leave without saving and lose {since}"

    def _save_and_leave(self, stop: StopRequest) -> None:
        begun = time.perf_counter()
        # The losses of the steps since the last record belong in the checkpoint too.
        self.learner.collect_losses()
        payload = self.state.payload()
        if self.world.is_main:
            if self.records is not None:
                self.records.sync()
            # A stopped job has little time left: wait for the disk and end at once.
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

    def _keep_points_on_device(self) -> None:
        buffer, wanted, rows = self.data.buffer, self.config.points_on_device, self.data.used_rows()
        if wanted is True or (wanted == "auto" and buffer.fits(self.device, rows)):
            buffer.move_points_to(self.device, rows)

    def _batches(self) -> Generator[Batch, None, None]:
        """All batches left in the run."""
        return train_loader(
            self.data,
            self.schedule,
            self.progress.epoch,
            self.progress.step_in_epoch,
            self.config.num_epochs,
            self._workers(),
            pin_memory=self.device.type == "cuda",
        )

    def _workers(self) -> int:
        """Loader processes: as configured, at most this rank's share of the cores.

        One is enough if the points lie on the device: the rest of a batch is small.
        """
        most = min(self.config.num_workers, max(0, cores_per_rank(os.environ) - 1))
        return min(most, 1) if self.data.buffer.points_on_device else most

    def _bar(self) -> ProgressBar:
        return progress_bar(
            self.state.total_steps,
            "training",
            "step",
            initial=self.progress.step,
            disable=not self.world.is_main,
        )

    def _open_records(self, experiment: Experiment) -> RunLogger | None:
        if not self.world.is_main:
            return None
        wandb = make_wandb(self.config.wandb, self.folder, self.state.settings(), self.log)
        counted = self.progress.records
        records = RunLogger(self.folder, counted, wandb)
        if experiment.goes_on_in_its_folder and records.kept < counted:
            self.log.warning(
                "%s: only %d of the %d records up to the checkpoint are there; the others were "
                "lost, perhaps when the power failed, and the curves have a gap",
                records.path,
                records.kept,
                counted,
            )
        self.progress.records = records.kept
        return records

    def _announce(self, experiment: Experiment) -> None:
        """Say what this run is before it begins."""
        if experiment.checkpoint is not None:
            self.log.info(
                "resuming %s at epoch %d, step %d",
                experiment.checkpoint,
                self.progress.epoch,
                self.progress.step,
            )
        place = describe_place(self.device)
        how = f"{self.world}, {place}, {self.state.policy.precision}, fused AdamW"
        how += ", deterministic" if self.config.deterministic else ""
        lines = [
            f"experiment {self.folder}",
            how + (", compiled" if self.config.compile else ""),
            describe_policy(self.state.policy),
            describe_data(self.data),
            f"{describe_schedule(self.schedule)}, {self.state.total_steps} in all; "
            f"{self._workers()} loader workers",
            describe_plan(self.config),
        ]
        for line in lines:
            self.log.info(line)
        if not len(self.data.val) and self.world.is_main:
            self.log.warning("no validation episodes: the newest checkpoints are kept")
        warning = warn_of_warmup(self.config, self.state.total_steps)
        if warning and self.world.is_main:
            self.log.warning("warning: %s", warning)
