"""The sample of each step, as a pure function of (seed, epoch, step).

An epoch is one permutation of all windows. An optimiser step takes the next ``step_size`` of them:
batch size x processes x accumulation, or what is left in an epoch's last step. The step is cut into
micro-batches, and each of those into the ranks' shares. So neither processes nor loader workers
change a step's windows, and a run can resume at any step.

Invariants: each window occurs once per epoch; the shares of all ranks and micro-batches of a step
are its windows, in order; the noise of a window belongs to its place in the step, not to a rank.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Windows:
    """Training windows: the first frame of each, and its episode [start, end).

    A window at s stands for frames s .. s + horizon - 1, clipped to its episode: the first frame is
    repeated before its start, the last behind its end.
    """

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def rows(self, index: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames (n, len(offsets)) at ``offsets`` from the first of windows ``index`` (n,)."""
        # Clipping repeats an episode's first and last frame, as DP3 pads.
        frames = self.first[index, None] + offsets
        return np.clip(frames, self.start[index, None], self.end[index, None] - 1)


def make_windows(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    horizon: int,
    pad_before: int,
    pad_after: int,
) -> Windows:
    """All windows of the given episodes, each (K,) start and end in frames of the store.

    A window begins at most ``pad_before`` frames before its episode and ends at most ``pad_after``
    behind it, as in DP3: an episode of L frames has L - horizon + 1 + pad_before + pad_after.
    """
    counts = np.maximum(ends - starts - horizon + 1 + pad_before + pad_after, 0)
    episode = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[episode] - pad_before + within
    return Windows(first.astype(np.int64), starts[episode], ends[episode])


@dataclass(frozen=True)
class MicroBatch:
    """One rank's share of one forward pass.

    Attributes:
        epoch, step: the optimiser step it belongs to; ``step`` counts within the epoch.
        windows: (n,) indices of windows.
        positions: (n,) their places within the whole step.
        step_size: windows of the whole step, over all ranks and micro-batches.
        share: its part of the step. It is 0 for a rank without work in an epoch's last step. Such a
            rank computes a window all the same, since the ranks step together.
        last: whether the optimiser steps after it.
    """

    epoch: int
    step: int
    windows: NDArray[np.int64]
    positions: NDArray[np.int64]
    step_size: int
    share: float
    last: bool


@dataclass(frozen=True)
class Schedule:
    """The order of a whole run, for one rank.

    Attributes:
        n_windows: windows of an epoch.
        batch_size: windows of a micro-batch on one rank.
        accumulation: micro-batches of an optimiser step.
        seed: of the order.
        rank, world_size: of this share.
    """

    n_windows: int
    batch_size: int
    accumulation: int
    seed: int
    rank: int = 0
    world_size: int = 1

    @property
    def effective_batch_size(self) -> int:
        """Windows of a full optimiser step."""
        return self.batch_size * self.accumulation * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch, a last incomplete one included."""
        return math.ceil(self.n_windows / self.effective_batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The permutation (n_windows,) of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.n_windows)

    def epoch(self, epoch: int, first_step: int = 0) -> list[MicroBatch]:
        """This rank's micro-batches of an epoch from optimiser step ``first_step`` on."""
        order, batches = self.order(epoch), []
        for step in range(first_step, self.steps_per_epoch):
            begin = step * self.effective_batch_size
            batches += self._step(epoch, step, order[begin : begin + self.effective_batch_size])
        return batches

    def run(self, epoch: int, first_step: int, num_epochs: int) -> Iterator[MicroBatch]:
        """`epoch` from a step on, and all epochs after it up to ``num_epochs``."""
        for number in range(epoch, num_epochs):
            yield from self.epoch(number, first_step if number == epoch else 0)

    def _step(self, epoch: int, step: int, windows: NDArray[np.int64]) -> list[MicroBatch]:
        count, micro_size = len(windows), self.batch_size * self.world_size
        batches = []
        for begin in range(0, count, micro_size):
            positions = np.arange(begin, min(begin + micro_size, count))
            # Ranks take neighbouring parts of one list, so their number changes no step's windows.
            mine = np.array_split(positions, self.world_size)[self.rank]
            share, last = len(mine) / count, begin + micro_size >= count
            # A rank without work computes one window at weight 0: all ranks must take part.
            mine = mine if len(mine) else positions[:1]
            batches.append(MicroBatch(epoch, step, windows[mine], mine, count, share, last))
        return batches
