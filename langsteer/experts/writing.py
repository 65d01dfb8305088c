"""Record one episode and write its frames: the job of a collection's worker.

Example::

    writer = EpisodeWriter(Path("data/demos"), "builtin", None, "depth", seed=0)
    note = writer.write(EpisodeJob(0, "training", ("open_drawer",)))
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langsteer.calvin.dataset_writer import achieved_actions, save_frame
from langsteer.calvin.instructions import phrasings
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.experts.annotate import Window, events, windows
from langsteer.experts.recording import DRIVEN_STEPS, TASK_STEPS, Driver, Episode, Performer
from langsteer.files import sync

MAX_ATTEMPTS = 20
"""Attempts at one episode before the expert counts as unable."""

# A task takes three skills at most (a block put down or lifted, a look around, the task itself),
# with a driver's try before.
_FRAMES_PER_TASK = 1000
assert 3 * TASK_STEPS + max(DRIVEN_STEPS) < _FRAMES_PER_TASK


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to be recorded.

    Attributes:
        number: of the episode in the dataset.
        split: ``"training"`` or ``"validation"``.
        tasks: the one to be shown, or those to choose from in play.
        chain_length: tasks in an episode of play; 0 for one that shows a single task.
    """

    number: int
    split: str
    tasks: tuple[str, ...]
    chain_length: int = 0

    @property
    def first_frame(self) -> int:
        """The first number of the episode's own range; ranges never overlap."""
        return self.number * self.most_frames

    @property
    def most_frames(self) -> int:
        """Numbers in that range."""
        return _FRAMES_PER_TASK * max(self.chain_length, 1)


@dataclass(frozen=True)
class EpisodeNote:
    """The facts of a finished episode.

    Attributes:
        number, split: of its job.
        first_frame, last_frame: both inclusive.
        annotations: (first frame, one after the last, task, instruction) of each window.
        tried: task to number of attempts, discarded ones included.
        achieved: task to number of attempts the oracle saw done.
    """

    number: int
    split: str
    first_frame: int
    last_frame: int
    annotations: list[tuple[int, int, str, str]]
    tried: dict[str, int]
    achieved: dict[str, int]


class EpisodeWriter:
    """Records and writes episodes; it can be sent to another process before its first.

    Args:
        path: folder of the dataset.
        scene, assets_path, renderer: of the environment.
        seed: of everything drawn at random.
        colours: whether the depth renderer draws colours, too.
        instructed: play as told: see `Performer.play`; an expert's task is annotated from its
            beginning to its end.
        make_driver: makes the driver of instructed play in the recording process.
    """

    def __init__(
        self,
        path: Path,
        scene: str,
        assets_path: Path | None,
        renderer: str,
        seed: int,
        colours: bool = False,
        instructed: bool = False,
        make_driver: Callable[[], Driver] | None = None,
    ) -> None:
        self._path, self._scene, self._assets_path = path, scene, assets_path
        self._renderer, self._seed, self._colours = renderer, seed, colours
        self._instructed, self._make_driver = instructed, make_driver
        self._performer: Performer | None = None

    def _made_performer(self) -> Performer:
        driver = None if self._make_driver is None else self._make_driver()
        pipeline = None if driver is None else driver.pipeline
        env = CalvinEnv(self._scene, self._assets_path, self._renderer, pipeline)
        return Performer(env, True, self._colours, driver)

    def write(self, job: EpisodeJob) -> EpisodeNote:
        """Record an episode, trying until the oracle agrees, and write its frames.

        Raises:
            UserError: the expert failed `MAX_ATTEMPTS` times.
        """
        # The simulator opens in the worker itself: PyBullet does not travel between processes.
        if self._performer is None:
            self._performer = self._made_performer()
        tried: Counter[str] = Counter()
        done: Counter[str] = Counter()
        for attempt in range(MAX_ATTEMPTS):
            # Each attempt draws anew, from numbers that do not depend on worker or order.
            rng = np.random.default_rng([self._seed, job.number, attempt])
            if job.chain_length:
                episode = self._performer.play(job.tasks, job.chain_length, rng, self._instructed)
            else:
                episode = self._performer.single(job.tasks[0], rng)
            tried.update(episode.attempted)
            done.update(episode.achieved)
            # CALVIN's rule may find no window although the task was done: then the episode shows
            # nothing.
            chosen = episode.shown if self._instructed else _choose_windows(episode, rng)
            shown = {window.task for window in chosen}
            if shown if job.chain_length else shown >= set(job.tasks):
                return self._save(job, episode, chosen, rng, tried, done)
        raise UserError(
            f"scene {self._scene}: the experts failed {MAX_ATTEMPTS} times at "
            f"{' and '.join(job.tasks)} (seed {self._seed}, episode {job.number}); leave it out"
        )

    def _save(
        self,
        job: EpisodeJob,
        episode: Episode,
        chosen: Sequence[Window],
        rng: np.random.Generator,
        tried: Counter[str],
        done: Counter[str],
    ) -> EpisodeNote:
        first = job.first_frame
        robot_obs = np.stack(episode.robot_obs)
        # As in CALVIN, actions are the achieved motion, not the commanded one.
        actions, rel_actions = achieved_actions(robot_obs)
        files = []
        for index in range(episode.n_frames):
            frame = {
                "robot_obs": robot_obs[index],
                "scene_obs": episode.scene_obs[index],
                "actions": actions[index],
                "rel_actions": rel_actions[index],
                **episode.images[index],
            }
            files.append(save_frame(self._path / job.split, first + index, frame))
        # The note that follows promises all frames: they must be on the disk.
        for file in (*files, self._path / job.split):
            sync(file)
        annotations = [
            (first + window.start, first + window.end, window.task, _phrase(window.task, rng))
            for window in chosen
        ]
        last = first + episode.n_frames - 1
        return EpisodeNote(job.number, job.split, first, last, annotations, dict(tried), dict(done))


def _choose_windows(episode: Episode, rng: np.random.Generator) -> list[Window]:
    """One window for each time a task was done: the one that shows most of it.

    The frame after a window's last is in the dataset, too: some readers of CALVIN's annotations
    take their ends as inclusive.
    """
    chosen = []
    for group in events(windows(episode.infos[: episode.n_frames - 1])):
        longest = max(window.end - window.start for window in group)
        best = [window for window in group if window.end - window.start == longest]
        chosen.append(best[rng.integers(len(best))])
    return chosen


def _phrase(task: str, rng: np.random.Generator) -> str:
    options = phrasings(task)
    return options[rng.integers(len(options))]
