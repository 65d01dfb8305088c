"""Batches for DP3 from a store: windows, splits and the loader.

A batch holds the points of the two observation frames only, not of the sixteen of the horizon. It
carries its own diffusion noise and timesteps. They are drawn from (seed, epoch, step) and the
window's place in the step, so they do not depend on ranks, workers or micro-batches. A policy with
language also gets sentences, and a mask of those withheld, drawn likewise.

Example::

    windows = TrainingDatasetConfig(zarr_path=path)
    data = CalvinData(open_store(path), policy_config, windows, seed=42)
    schedule = Schedule(len(data.train), batch_size=16, accumulation=1, seed=42)
    for batch in train_loader(data, schedule, epoch=0, first_step=0, num_epochs=9, num_workers=2):
        loss = policy(batch, batch["noise"], batch["timesteps"], withheld=batch.get("withheld"))
"""

import hashlib
import json
import signal
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from langsteer.data.store import Store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.policies.dp3.config import FRAMES_AHEAD
from langsteer.policies.dp3.normalizer import TCP_POSITION
from langsteer.training.config import TrainingDatasetConfig
from langsteer.training.replay_buffer import ReplayBuffer
from langsteer.training.sampler import MicroBatch, Schedule, Windows, make_windows
from langsteer.training.sentences import EpisodeSentences

GRIPPER = 6
DRAWN_AT_ONCE = 1024
"""The noise of this many windows is drawn together. A rank draws the blocks of its windows."""
_LANGUAGE = 0x5A1D  # besides the step, so that the draws of the noise stay as they are
Batch = dict[str, Any]


class CalvinData:
    """The windows of training and of validation, and how to make batches of them.

    Attributes:
        train, val: windows; their episodes share no frame of the source.
        official_validation: whether ``val`` is CALVIN's own validation split.
        train_episodes, val_episodes: indices of the episodes.
        sentences: of all episodes; None for a policy without language.
    """

    def __init__(
        self, store: Store, policy: DP3Config, config: TrainingDatasetConfig, seed: int
    ) -> None:
        self.store = store
        self.policy = policy
        self.tail = config.tail
        self.train_episodes, self.val_episodes, self.official_validation = split_episodes(
            store, config, seed
        )
        self.train = self._windows(self.train_episodes)
        self.val = self._windows(self.val_episodes)
        if not len(self.train):
            raise UserError(
                f"{store.path}: its {len(self.train_episodes)} training episodes are too short for "
                f"a single window ({policy.horizon - self._pads[0] - self._pads[1]} frames)"
            )
        self.sentences = (
            EpisodeSentences(store, policy, config.sentences) if policy.language else None
        )
        self.buffer = ReplayBuffer(store, policy.use_pc_color)

    @property
    def _pads(self) -> tuple[int, int]:
        """How many frames a window may begin before its episode, and end after it, as in DP3."""
        return self.policy.n_obs_steps - 1, self.policy.n_action_steps - 1

    def _windows(self, episodes: NDArray[np.int64]) -> Windows:
        starts, ends = self.store.episode_starts[episodes], self.store.episode_ends[episodes]
        return make_windows(starts, ends, self.policy.horizon, *self._pads)

    def train_rows(self) -> NDArray[np.int64]:
        """The frames (n,) of all training episodes. A normaliser may see these alone."""
        return self._rows_of(self.train_episodes)

    def used_rows(self) -> NDArray[np.int64]:
        """The frames (n,) of all training and validation episodes, ascending."""
        return self._rows_of(np.sort(np.concatenate([self.train_episodes, self.val_episodes])))

    def _rows_of(self, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        starts, ends = self.store.episode_starts[episodes], self.store.episode_ends[episodes]
        return np.concatenate([np.arange(*bounds) for bounds in zip(starts, ends, strict=True)])

    def fingerprint(self) -> str:
        """A digest of the windows and sentences; a resumed run must find the same."""
        digest = hashlib.sha256(self.tail.encode())
        for windows in (self.train, self.val):
            digest.update(windows.first.tobytes())
        if self.sentences is not None:
            digest.update(json.dumps(self.sentences.texts).encode())
        return digest.hexdigest()[:16]

    def batch(
        self,
        windows: Windows,
        index: NDArray[np.int64],
        phrasing: NDArray[np.float64] | None = None,
    ) -> Batch:
        """Observations and actions of some windows, in raw units.

        Args:
            windows: `train` or `val`.
            index: (B,) which of them.
            phrasing: (B,) numbers in [0, 1), each choosing a sentence; None: the episodes' own.

        Returns:
            ``obs``: ``agent_pos`` (B, 2, 15) and ``point_cloud`` (B, 2, P, 3). With points on a
            device, ``places`` (B, 2) int64 there instead. For a policy with language also
            ``language`` (B, E). ``action`` (B, horizon, 7). All float32.
        """
        offsets = np.arange(self.policy.horizon)
        rows = windows.rows(index, offsets)
        # Points are most of a batch: only frames the network sees are read.
        seen = rows[:, : self.policy.n_obs_steps]
        actions = self.buffer.actions[rows]
        # Behind the episode's end the arm rests; a repeated last action would move it on.
        if self.tail == "zero_motion":
            behind = windows.first[index, None] + offsets >= windows.end[index, None]
            actions[behind, :GRIPPER] = 0.0
        obs: dict[str, torch.Tensor] = {"agent_pos": torch.from_numpy(self.buffer.states[seen])}
        if self.buffer.points_on_device:
            obs["places"] = torch.from_numpy(self.buffer.places(seen))
        else:
            obs["point_cloud"] = torch.from_numpy(self.buffer.points(seen))
        if self.sentences is not None:
            episodes = np.searchsorted(self.store.episode_ends, windows.start[index], side="right")
            obs["language"] = torch.from_numpy(self.sentences.embeddings(episodes, phrasing))
        return {"obs": obs, "action": torch.from_numpy(actions)}

    def train_batch(self, micro: MicroBatch, seed: int) -> Batch:
        """A micro-batch with its noise, timesteps and the numbers of its step."""
        # Everything random comes from the window's place in the step, so any rank or worker may
        # make the batch.
        withheld, phrasing = self._own_draws(language_draws, micro, seed)
        batch = self.batch(self.train, micro.windows, phrasing)
        if self.sentences is not None:
            batch["withheld"] = torch.from_numpy(withheld)
        if self.policy.foresight:
            batch["hand_ahead"] = torch.from_numpy(self._hand_ahead(micro.windows))
        noise, timesteps = self._own_draws(diffusion_draws, micro, seed)
        batch["noise"] = torch.from_numpy(noise).flatten(0, 1)
        batch["timesteps"] = torch.from_numpy(timesteps).flatten()
        batch["share"] = micro.share
        batch["last"] = micro.last
        return batch

    def _hand_ahead(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, K, 3) metres: the tcp `FRAMES_AHEAD` frames after the present, within the episode."""
        present = self.policy.n_obs_steps - 1
        rows = self.train.rows(index, present + np.array(FRAMES_AHEAD))
        return self.buffer.states[rows][..., TCP_POSITION]

    def _own_draws(self, draw: "Draw", micro: MicroBatch, seed: int) -> tuple[NDArray[Any], ...]:
        """The draws of a micro-batch's windows, out of those of its step.

        A step draws in blocks of `DRAWN_AT_ONCE` windows, each with its own seed. So a rank draws
        the blocks it needs, not those of all ranks. The first block has the seed of the step.
        """
        step, of_block = [seed, micro.epoch, micro.step], micro.positions // DRAWN_AT_ONCE
        parts = []
        for block in np.unique(of_block).tolist():
            first = block * DRAWN_AT_ONCE
            # Draw the whole block, then pick our rows: so the draws do not depend on the share.
            count = min(DRAWN_AT_ONCE, micro.step_size - first)
            drawn = draw(self.policy, count, [*step, block] if block else step)
            own = micro.positions[of_block == block] - first
            parts.append([values[own] for values in drawn])
        return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


Draw = Callable[[DP3Config, int, list[int]], tuple[NDArray[Any], NDArray[Any]]]
"""From a policy, a number of windows and a seed to two arrays of draws, a row for each window."""


def diffusion_draws(
    policy: DP3Config, count: int, seed: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Noise (count, K, horizon, 7) and timesteps (count, K), K draws for each window."""
    generator = np.random.default_rng(seed)
    shape = (count, policy.noise_draws)
    timesteps = generator.integers(policy.num_train_timesteps, size=shape)
    noise = generator.standard_normal((*shape, policy.horizon, policy.action_dim), dtype=np.float32)
    return noise, timesteps


def language_draws(
    policy: DP3Config, count: int, seed: list[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """For each window: whether its sentence is withheld (count,), and a draw of one (count,)."""
    generator = np.random.default_rng([*seed, _LANGUAGE])
    return generator.random(count) < policy.language_dropout, generator.random(count)


def split_episodes(
    store: Store, config: TrainingDatasetConfig, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Indices of the training and validation episodes, and whether the latter are official.

    CALVIN's validation split is used if the store has one. Otherwise ``val_ratio`` of the groups is
    held out, at least one. Episodes of one group share frames of the source, so they stay on one
    side. ``max_train_episodes`` does not change the validation episodes: losses stay comparable.

    Raises:
        UserError: there is no episode to train on.
    """
    random = np.random.default_rng(seed)
    official = store.episodes.split == "validation"
    if official.any():
        validates = official
    elif config.val_ratio > 0 and len(np.unique(store.episodes.group)) > 1:
        groups = np.unique(store.episodes.group)
        count = max(1, round(len(groups) * config.val_ratio))
        validates = np.isin(store.episodes.group, random.choice(groups, count, replace=False))
    else:
        validates = np.zeros(len(store.episodes), dtype=bool)
    train = np.flatnonzero(~validates)
    if not len(train):
        raise UserError(
            f"{store.path}: none of its {len(store.episodes)} episodes is for training. It was "
            "made of a validation split alone; convert a CALVIN folder with a training/ split"
        )
    # After the split, so that fewer training episodes leave the validation as it was.
    if config.max_train_episodes is not None and config.max_train_episodes < len(train):
        train = np.sort(random.choice(train, config.max_train_episodes, replace=False))
    return train, np.flatnonzero(validates), bool(official.any())


class _MicroBatches(Dataset[Batch]):
    """Micro-batches by their description, for the loader's workers."""

    def __init__(self, data: CalvinData, seed: int) -> None:
        self.data, self.seed = data, seed

    def __getitem__(self, micro: MicroBatch) -> Batch:
        return self.data.train_batch(micro, self.seed)


def train_loader(
    data: CalvinData,
    schedule: Schedule,
    epoch: int,
    first_step: int,
    num_epochs: int,
    num_workers: int,
    pin_memory: bool = False,
) -> Generator[Batch, None, None]:
    """The micro-batches of a run from optimiser step ``first_step`` of ``epoch`` on, read ahead.

    One loader serves all epochs up to ``num_epochs``. Forking its workers anew takes as long as an
    epoch of a small dataset on a GPU, and the next epoch is read while this one ends.

    Close it if you leave it early. Python ends workers at exit by SIGTERM, and these ignore the
    signals meant for the trainer.
    """
    batches = iter(
        DataLoader(
            _MicroBatches(data, schedule.seed),
            batch_size=None,
            sampler=schedule.run(epoch, first_step, num_epochs),
            num_workers=num_workers,
            # Forked workers share the states, and know that points lie on a GPU. By Python 3.14's
            # default each worker would get a copy.
            multiprocessing_context="fork" if num_workers else None,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # else the loader would draw from the global one
        )
    )
    try:
        yield from batches
    finally:
        if num_workers:
            # Only the iterator of several processes has it.
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _leave_signals_to_the_trainer(worker: int) -> None:
    """A job's signals reach all its processes; the trainer still needs its workers' batches."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
