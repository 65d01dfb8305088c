"""Numbered pieces of work: continued after any kill, done in processes, shared by jobs.

A piece is a function of (settings, its number). Its result file, written last and by rename, marks
it done. The same command, given again, does the pieces without a result. Several jobs may work in
one folder. Either each has a share I/N of the pieces, or all have the same share, and a job claims
a piece before doing it. A claim ends with its process, so the others take over a killed job's
pieces.

Example::

    settle_settings(folder / "settings.json", settings, "choose another output_dir")
    pieces = Pieces(folder / "episodes", "episode", "episodes")
    results = run_pieces(pieces, range(10), partial(Player, settings), num_workers=2)
"""

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langsteer.claims import CLAIMS, Claims, at_work
from langsteer.errors import UserError
from langsteer.files import create_once, replacing
from langsteer.interruption import interruptible
from langsteer.nesting import differences
from langsteer.processes import Worker, checked_workers, doers
from langsteer.progress import progress_bar
from langsteer.reading import read_json
from langsteer.records import problem

Result = dict[str, Any]
"""Plain values of JSON."""
T = TypeVar("T")
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Share:
    """Part ``index`` of ``count``, from 0: every ``count``-th piece."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: object, key: str = "shard=") -> "Share":
        """``"I/N"`` with 0 <= I < N; raises `UserError` for anything else."""
        parts = str(text).split("/")
        if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
            share = cls(int(parts[0]), int(parts[1]))
            if share.index < share.count:
                return share
        raise UserError(f"{key}{text}: expected I/N with I from 0 to N - 1, e.g. 0/4")

    def of(self, pieces: Sequence[T]) -> Sequence[T]:
        """Its pieces."""
        return pieces[self.index :: self.count]


WHOLE = Share()


def _none(number: int, result: Result) -> str:
    return ""


@dataclass(frozen=True)
class Pieces:
    """The result files of numbered pieces.

    Attributes:
        folder: holds them.
        unit: name of a piece, for the progress bar.
        doing: name of the work, likewise.
        file_name: of a result; a format of the number.
        kind: the type of a result, see `langsteer.records`.
        contradiction: from a number and a result to what cannot be that piece's, in words; empty
            if all can. It is picklable.
    """

    folder: Path
    unit: str
    doing: str
    file_name: str = "{:04d}.json"
    kind: Any = dict[str, Any]
    contradiction: Callable[[int, Result], str] = _none

    def path(self, number: int) -> Path:
        """The result file of a piece."""
        return self.folder / self.file_name.format(number)

    def read(self, number: int) -> Result | None:
        """The result of a piece, or None while it is not done.

        Raises:
            UserError: its file is damaged, or another piece's.
        """
        path = self.path(number)
        if not os.path.lexists(path):  # a broken link is no piece that is still to be done
            return None
        result = _read_object(path)
        wrong = problem(result, self.kind) or self.contradiction(number, result)
        if wrong:
            raise UserError(f"{path}: damaged ({wrong}); remove it, and it is made again")
        return result

    def write(self, number: int, result: Result) -> None:
        """Write the result file; its existence marks the piece done."""
        with replacing(self.path(number)) as temporary:
            temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")

    def done(self, numbers: Iterable[int]) -> dict[int, Result]:
        """Number to result of the finished pieces."""
        found = ((number, self.read(number)) for number in numbers)
        return {number: result for number, result in found if result is not None}


def _read_object(path: Path) -> Result:
    """The object in a JSON file; raises `UserError` for any other content."""
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, no object")
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: damaged ({error!s:.300}); remove it, and it is made again"
        ) from error
    return content


def settle_settings(path: Path, settings: Mapping[str, object], remedy: str) -> None:
    """Write a folder's settings, or compare them with those of its earlier jobs.

    If several jobs begin at once, the first one's settings count.

    Args:
        path: the settings' file.
        settings: those the results depend on, in plain values.
        remedy: advice on other settings.

    Raises:
        UserError: they differ; the message lists the differences.
    """
    text = json.dumps(settings, indent=1)
    if not path.exists():
        create_once(path, text)
    line = "  {name}: {one} there, {other} now"
    differing = differences(_read_object(path), json.loads(text), line)
    if differing:
        raise UserError(f"{path.parent}: holds results of other settings:\n{differing}\n{remedy}")


def run_pieces(
    pieces: Pieces,
    numbers: Sequence[int],
    make_worker: Callable[[], Worker[Result]],
    num_workers: int | None = 1,
    share: Share = WHOLE,
    summarise: Callable[[Collection[Result]], str] = lambda results: "",
    tidy: Callable[[], None] = lambda: None,
) -> dict[int, Result]:
    """Do the missing pieces of this job, and return all finished ones.

    Args:
        pieces: the result files.
        numbers: of all pieces, those of other jobs too.
        make_worker: called in each process; it must be picklable.
        num_workers: processes; 1 works in this one, None takes one for each core, 8 at most.
        share: this job's part.
        summarise: a few words on the results so far, for the progress bar.
        tidy: see `at_work`.

    Returns:
        Number to result, in the order of ``numbers``. Some are missing while other jobs' shares
        are not done.

    Raises:
        UserError: an input is wrong, or a worker process died.
    """
    # Result files say what is done: nothing else has to be remembered, and nothing can disagree.
    mine = share.of(numbers)
    done = pieces.done(mine)
    missing = [number for number in mine if number not in done]
    _say_what_is_done(pieces, len(done), len(mine))
    workers = checked_workers(num_workers, len(missing))
    with (
        at_work(pieces.folder, tidy) as alone,
        progress_bar(len(mine), pieces.doing, pieces.unit, initial=len(done)) as bar,
    ):
        if missing and not alone:
            print(f"{pieces.folder}: another job is at work here too", file=sys.stderr)
        # Each result is on disk before it counts here, so a signal loses only pieces in work.
        with interruptible(
            lambda: (
                f"{len(done)} of {len(mine)} {pieces.unit}s are in {pieces.folder}; the same "
                "command goes on with the others"
            )
        ):
            for number, result in _do_unclaimed(pieces, missing, make_worker, workers):
                done[number] = result
                bar.set_postfix_str(summarise(done.values()), refresh=False)
                bar.update()
    # Look again at all: other jobs have finished pieces meanwhile.
    found = pieces.done(numbers)
    if len(found) == len(numbers):  # nobody has anything to claim any more
        (pieces.folder / CLAIMS).unlink(missing_ok=True)
    return found


def _say_what_is_done(pieces: Pieces, done: int, count: int) -> None:
    """Tell a run that goes on, or has nothing to do, from a fresh one."""
    if done == count:
        print(
            f"{pieces.folder}: all {count} {pieces.unit}s were made before, and are kept as they "
            "are; remove the folder to make them again",
            file=sys.stderr,
        )
    elif done:
        print(
            f"{pieces.folder}: going on, {done} of {count} {pieces.unit}s were made before",
            file=sys.stderr,
        )


def _do_unclaimed(
    pieces: Pieces,
    missing: Sequence[int],
    make_worker: Callable[[], Worker[Result]],
    workers: int,
) -> Iterator[tuple[int, Result]]:
    """Do the unclaimed pieces, and wait for those of other jobs."""
    if not missing:
        return  # a worker may take a while to make
    with doers(partial(_Claiming, make_worker, pieces), workers) as do_all:
        while missing:
            finished = set()
            for number, result in do_all(missing):
                if result is not None:
                    finished.add(number)
                    yield number, result
            # Other jobs hold the rest. Ask again: they may be killed, and their claims end.
            missing = [number for number in missing if number not in finished]
            if missing:
                time.sleep(_LOOK_AGAIN_SECONDS)


class _Claiming:
    """Does a piece unless another job has claimed it, and writes its result."""

    def __init__(self, make_worker: Callable[[], Worker[Result]], pieces: Pieces) -> None:
        self._worker, self._pieces = make_worker(), pieces
        self._claims = Claims(pieces.folder)

    def do(self, number: int) -> Result | None:
        """The result of a piece, or None while another job does it."""
        if not self._claims.take(number):
            return None
        try:
            result = self._pieces.read(number)  # another job may have finished it by now
            if result is None:
                result = self._worker.do(number)
                self._pieces.write(number, result)
            return result
        finally:
            self._claims.release(number)

    def close(self) -> None:
        self._claims.close()
        self._worker.close()
