"""Record demonstrations as a CALVIN dataset folder: in parallel, resumable, a function of the seed.

Each episode is a function of (settings, its number) and owns a range of frame numbers. So any
worker may record it, at any time. A finished episode leaves a small note in ``.collection/``. After
a kill the same command records the episodes without a note.

Example::

    settings = CollectionSettings(tasks=("open_drawer",), episodes_per_task=30)
    collect(Path("data/demos"), settings, num_workers=2)
"""

import glob
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from langsteer.calvin.dataset import SPLITS, Annotation
from langsteer.calvin.dataset_writer import merged_config, save_metadata
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.claims import at_work
from langsteer.envs.scene import BUILTIN
from langsteer.errors import UserError
from langsteer.experts.library import checked_skills
from langsteer.experts.recording import Driver
from langsteer.experts.writing import EpisodeJob, EpisodeNote, EpisodeWriter
from langsteer.files import TRASH, discard, remove_temporary
from langsteer.resumable import Pieces, Result, run_pieces, settle_settings
from langsteer.sentences import make_encoder, missing_packages
from langsteer.settings import Count, Natural, Settings

NOTES = ".collection"
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class CollectionSettings(Settings):
    """Settings of a recording; the same settings give the same dataset.

    Attributes:
        tasks: to be shown; in play, those to choose from.
        episodes_per_task: training episodes of each task; in play, of all.
        validation_per_task: the same for the validation split.
        play: long chains of feasible tasks instead of one task an episode.
        chain_length: tasks in an episode of play.
        scene: of the environment.
        instructed: in play, annotate each task from its beginning to its end. Most tasks end soon
            after they are done, as under a policy that is told the next.
        renderer: of the environment; with ``"depth"`` colour images are black without ``colours``.
        colours: whether the depth renderer draws colours, too.
        driver: checkpoint of a policy that begins most tasks of instructed play, for the expert to
            finish; empty for none.
        pointed: whether the driver is pointed at its tasks instead of told them.
        seed: of everything drawn at random.
    """

    tasks: tuple[str, ...]
    episodes_per_task: Count = 30
    validation_per_task: Natural = 3
    play: bool = False
    chain_length: Count = 8
    instructed: bool = False
    scene: str = BUILTIN
    renderer: str = "depth"
    colours: bool = False
    driver: str = ""
    pointed: bool = False
    seed: Natural = 0

    def check(self) -> None:
        """Raise `UserError` if one choice needs another."""
        self.require(self.play or not self.instructed, "instructed", "--play, too")
        self.require(self.instructed or not self.driver, "driver", "--play --instructed, too")
        self.require(bool(self.driver) or not self.pointed, "pointed", "--driver, too")

    def jobs(self) -> list[EpisodeJob]:
        """All episodes, tasks taking turns; training first."""
        goals = (self.tasks,) if self.play else tuple((task,) for task in self.tasks)
        counts = dict(zip(SPLITS, (self.episodes_per_task, self.validation_per_task), strict=True))
        parts = [(split, goal) for split, count in counts.items() for goal in goals * count]
        return [
            EpisodeJob(number, split, goal, self.chain_length if self.play else 0)
            for number, (split, goal) in enumerate(parts)
        ]


@dataclass(frozen=True)
class CollectionSummary:
    """The content of the folder after a run.

    Attributes:
        path: of the dataset.
        episodes, frames: their numbers.
        tried: task to number of attempts, in all episodes and discarded attempts.
        achieved: task to number of attempts the oracle saw done.
        annotations: task to number of windows.
    """

    path: Path
    episodes: int
    frames: int
    tried: Counter[str]
    achieved: Counter[str]
    annotations: Counter[str]


def collect(
    path: Path,
    settings: CollectionSettings,
    assets_path: Path | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
    make_driver: Callable[[], Driver] | None = None,
) -> CollectionSummary:
    """Record the missing episodes of a dataset, and complete it.

    Args:
        path: folder of the dataset.
        settings: what to record.
        assets_path: CALVIN's ``calvin_env`` checkout, for scenes A-D.
        num_workers: processes; None takes one for each core, 8 at most.
        overwrite: throw away an earlier run's recordings at ``path``.
        make_driver: makes the driver named in ``settings``, in each recording process.

    Raises:
        UserError: impossible settings, a folder in use for something else, a task its expert fails
            again and again, or a dead worker.
    """
    # Every fault of the settings shows before the first episode: recording takes hours.
    checked_skills(settings.tasks)
    _prepare(path, settings, overwrite)
    jobs = settings.jobs()
    pieces = Pieces(
        path / NOTES,
        "episode",
        "recording",
        "episode_{:06d}.json",
        EpisodeNote,
        partial(_contradiction, jobs),
    )
    # The notes of finished episodes are kept; only the others are recorded.
    done = run_pieces(
        pieces,
        range(len(jobs)),
        partial(Recorder, path, settings, assets_path, make_driver),
        num_workers,
        summarise=_so_far,
        tidy=lambda: _sweep(path),
    )
    # The metadata come last: they make a dataset of the frames, and need all notes.
    notes = [EpisodeNote(**note) for note in done.values()]
    for split in SPLITS:
        _complete(path, settings, split, [note for note in notes if note.split == split])
    return _summary(path, notes)


class Recorder:
    """Records episodes of a collection by their numbers."""

    def __init__(
        self,
        path: Path,
        settings: CollectionSettings,
        assets_path: Path | None,
        make_driver: Callable[[], Driver] | None,
    ) -> None:
        self._jobs = settings.jobs()
        self._writer = EpisodeWriter(
            path,
            settings.scene,
            assets_path,
            settings.renderer,
            settings.seed,
            settings.colours,
            settings.instructed,
            make_driver,
        )

    def do(self, number: int) -> Result:
        """Record and write an episode; the result is its `EpisodeNote`."""
        return asdict(self._writer.write(self._jobs[number]))

    def close(self) -> None:
        """The environment ends with the process."""


def _contradiction(jobs: Sequence[EpisodeJob], number: int, note: Result) -> str:
    """What of a note cannot be that of an episode."""
    job = jobs[number]
    frames = range(job.first_frame, job.first_frame + job.most_frames)
    if (note["number"], note["split"], note["first_frame"]) != (
        job.number, job.split, job.first_frame,
    ):  # fmt: skip
        return f"the note of episode {note['number']} of {note['split']}"
    if note["last_frame"] not in frames:
        return f"last_frame={note['last_frame']}: expected one of {frames[0]} to {frames[-1]}"
    for start, end, task, _ in note["annotations"]:
        if not (start in frames and start < end <= note["last_frame"] + 1 and task in TASKS):
            return f"a window [{start}, {end}) of {task!r:.40}"
    return ""


def _prepare(path: Path, settings: CollectionSettings, overwrite: bool) -> None:
    """Make the folder for these settings, or check that it is theirs."""
    file = path / NOTES / _SETTINGS
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file; choose a folder")
    if path.exists() and not file.is_file() and any(path.iterdir()):
        raise UserError(
            f"{path}: not empty and not recorded by this command; choose another folder"
        )
    if file.is_file() and overwrite:
        # Whole: a part of the folder would be taken for somebody else's.
        with at_work(file.parent, tidy=lambda: discard(path)) as alone:
            if not alone:
                raise UserError(f"{path}: another job records there now; stop it to --overwrite")
    settle_settings(
        file, settings.to_dict(), "choose another folder, or give --overwrite to record it anew"
    )


def _sweep(path: Path) -> None:
    """Remove the remains of a killed run: half-written files, and things thrown away."""
    for doomed in path.parent.glob(f".{glob.escape(path.name)}{TRASH}*"):
        shutil.rmtree(doomed, ignore_errors=True)
    for folder in (NOTES, *SPLITS):
        remove_temporary(path / folder)


def _so_far(results: Collection[Result]) -> str:
    tried, achieved = (
        sum(sum(note[key].values()) for note in results) for key in ("tried", "achieved")
    )
    return f"{achieved}/{tried} tasks done"


def _complete(
    path: Path, settings: CollectionSettings, split: str, notes: list[EpisodeNote]
) -> None:
    """Write the metadata of a split with episodes."""
    if not notes:
        return
    annotations = [Annotation(*fields) for note in notes for fields in note.annotations]
    scene = settings.scene if settings.scene == BUILTIN else f"calvin_scene_{settings.scene}"
    # Our depth renderer samples pixels at the same places as EGL.
    renderer = "tiny" if settings.renderer == "tiny" else "egl"
    save_metadata(
        path / split,
        [(note.first_frame, note.last_frame) for note in notes],
        annotations,
        merged_config(renderer, scene),
        scene,
        {task: phrasings(task)[0] for task in TASKS} if split == "validation" else None,
        None if missing_packages() else make_encoder("minilm"),
    )


def _summary(path: Path, notes: list[EpisodeNote]) -> CollectionSummary:
    tried: Counter[str] = Counter()
    achieved: Counter[str] = Counter()
    for note in notes:
        tried.update(note.tried)
        achieved.update(note.achieved)
    return CollectionSummary(
        path=path,
        episodes=len(notes),
        frames=sum(note.last_frame - note.first_frame + 1 for note in notes),
        tried=tried,
        achieved=achieved,
        annotations=Counter(fields[2] for note in notes for fields in note.annotations),
    )


def summary_lines(summary: CollectionSummary) -> list[str]:
    """The summary as lines of text, one for each task."""
    lines = [f"{summary.path}: {summary.episodes} episodes, {summary.frames} frames"]
    for task, tried in sorted(summary.tried.items()):
        lines.append(
            f"  {task}: {summary.achieved[task]} of {tried} tries done, "
            f"{summary.annotations[task]} annotations"
        )
    return lines
