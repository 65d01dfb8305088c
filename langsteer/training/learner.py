"""Optimiser steps: gradients of micro-batches, over the ranks, and the losses on the way.

Example::

    learner = Learner(state, world)
    for batch in batches:
        learner.add(batch)
        if batch["last"]:
            learner.step()
    learner.collect_losses()
    state.progress.epoch_loss
"""

from contextlib import nullcontext

import torch
from torch import nn

from langsteer.errors import UserError
from langsteer.training.calvin_dataset import Batch
from langsteer.training.consensus import all_sum
from langsteer.training.pytorch_util import (
    data_parallel,
    learning_rate,
    require_gradients,
    step_unless_broken,
    summable,
    to_device,
)
from langsteer.training.run_state import RunState
from langsteer.training.world import World


class Learner:
    """Changes a run's weights and progress, the same on every rank.

    Losses and norms stay on the device until somebody reads them. So no step waits for a GPU.
    """

    def __init__(self, state: RunState, world: World) -> None:
        self.state, self.world = state, world
        self._policy: nn.Module = state.policy
        if world.is_group:
            config = state.config
            self._policy = data_parallel(
                state.policy, config.deterministic, config.gradient_compression
            )
        self._step_loss: torch.Tensor | float = 0.0
        self._uncollected: torch.Tensor | float = 0.0
        self._gradient_norm: torch.Tensor | float = 0.0
        self._broken: torch.Tensor | bool = False
        self._reached_all = False

    def add(self, batch: Batch) -> int:
        """Add a micro-batch's gradient. Every window of the step counts alike.

        Returns:
            The number of these windows over all ranks.
        """
        state, size = self.state, self.world.world_size
        # Copies run beside the computation. Points on the device are gathered there.
        moved = to_device(batch, state.device, state.data.buffer)
        # The ranks exchange gradients once a step: only its last micro-batch synchronises. A policy
        # wrapped by DDP has `no_sync`; mypy sees an `nn.Module`.
        together = batch["last"] or self._policy is state.policy
        alone = nullcontext() if together else self._policy.no_sync()  # type: ignore[operator]
        with alone, state.policy.precision.products(state.device):
            seen = {key: moved[key] for key in ("obs", "action", "hand_ahead") if key in moved}
            loss = self._policy(
                seen, moved["noise"], moved["timesteps"], withheld=moved.get("withheld")
            )
            # The share makes a window weigh the same in a full and in a last, smaller step. DDP
            # averages over the ranks, hence the factor.
            (loss * (batch["share"] * size)).backward()
        # Rounded so that any order of summing gives the same bits, after a resume as well.
        self._step_loss = self._step_loss + summable(loss.detach().double() * batch["share"])
        return len(moved["action"]) * size

    def step(self) -> None:
        """Change the weights by the added gradients, unless one is not finite."""
        state, progress = self.state, self.state.progress
        # A layer the loss never reaches would stay untrained in silence: look once, at the start.
        if not self._reached_all:
            require_gradients(state.policy)
            self._reached_all = True
        # The rate is set from the step, not carried along: a resumed run has the same one.
        for group in state.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress.step)
        # The device decides whether to step. The flag is read later: asking now waits for a GPU.
        self._gradient_norm = step_unless_broken(state.optimizer, state.policy)
        self._broken = ~self._gradient_norm.isfinite() | self._broken
        # The average follows every step, as its warm-up of the decay counts them.
        if state.ema is not None:
            state.ema.update(state.policy)
        self._uncollected = self._uncollected + self._step_loss
        self._step_loss = 0.0
        progress.step += 1
        progress.step_in_epoch += 1
        progress.unlogged_steps += 1
        if state.device.type == "cpu":  # asking costs nothing there
            self._raise_if_broken()

    def learning_rate(self, step: int) -> float:
        """The rate of an optimiser step, from 0."""
        config = self.state.config
        return learning_rate(
            step, self.state.total_steps, config.learning_rate, config.warmup_steps
        )

    @property
    def gradient_norm(self) -> float:
        """Of the last step."""
        return float(self._gradient_norm)

    def collect_losses(self) -> None:
        """Add the ranks' losses since the last call to the progress, the same on each rank.

        Raises:
            UserError: a loss or gradient was not finite.
        """
        self._raise_if_broken()
        # The float64 sum is exact (`summable`), so the sum over ranks does not depend on them.
        local = torch.as_tensor(self._uncollected, dtype=torch.float64).cpu()
        self._uncollected = 0.0
        loss = float(all_sum(local))
        self.state.progress.unlogged_loss += loss
        self.state.progress.epoch_loss += loss

    def _raise_if_broken(self) -> None:
        """Called when the GPU is waited for anyway; such a step changed no weight."""
        if bool(self._broken):
            progress = self.state.progress
            raise UserError(
                f"the loss or its gradient is not finite near step {progress.step} (epoch "
                f"{progress.epoch + 1}); it changed no weight. Check the data "
                f"(scripts/visualize_dataset.py --check {self.state.data.store.path}), or try a "
                "lower training.learning_rate or training.precision=fp32, and go on from the last "
                "checkpoint with training.resume=true"
            )
