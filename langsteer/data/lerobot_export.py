"""Write a CALVIN folder or a store as a LeRobot dataset v3.0.

The episodes are cut into files of some hundred frames. Each file is a piece of work of its own (see
`langsteer.resumable`): after a kill the same command writes the missing files. They fill
``<path>.partial``; after the last file and the metadata the folder gets its name.

Example::

    export(CalvinSource(make_plan(Path("task_D_D"), ConversionSettings())), Path("data/lerobot"))
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from langsteer.calvin.dataset import BadFrameError
from langsteer.data import lerobot_format as lerobot
from langsteer.data.lerobot_sources import Source
from langsteer.data.lerobot_stats import Sums, merged
from langsteer.data.store import partial_path
from langsteer.errors import UserError
from langsteer.files import discard, replacing, write_json
from langsteer.resumable import Pieces, Result, run_pieces, settle_settings

_FRAMES_PER_FILE = 384  # 100 MB of CALVIN's frames, LeRobot's own default for a file
_SPLITS = {"training": "train", "validation": "validation"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the dataset.
        frames, episodes: how many.
    """

    path: Path
    frames: int
    episodes: int


def export(
    source: Source, path: Path, overwrite: bool = False, num_workers: int | None = 1
) -> Exported:
    """Write the dataset, or go on doing so.

    Args:
        source: the frames.
        path: the folder to make.
        overwrite: replace an existing LeRobot dataset once the new one is whole.
        num_workers: processes; None takes one for each core, 8 at most.

    Raises:
        UserError: something else is at ``path``, an unfinished export of other data is beside it, a
            frame is bad, or the disk is full.
    """
    if path.exists() and not (overwrite and (path / lerobot.INFO_PATH).is_file()):
        raise UserError(f"{path}: exists already; --overwrite replaces a LeRobot dataset")
    partial_folder = partial_path(path)
    # The cut follows from the source alone, so a resumed run has the same files.
    files = _cut(source)
    settings = {
        "features": source.features,
        "cameras": source.cameras,
        "episodes": {**source.table.to_dict(), "ends": source.episode_ends.tolist()},
    }
    try:
        settle_settings(partial_folder / "export.json", settings, f"or remove {partial_folder}")
        pieces = Pieces(partial_folder / "pieces", "file", "exporting", "{:06d}.json")
        make_worker = partial(_FileWriter, source, partial_folder, files)
        done = run_pieces(pieces, range(len(files)), make_worker, num_workers)
        _write_metadata(source, partial_folder, files, done)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write ({error}). Make room or choose another place; the same command "
            "then goes on where it stopped"
        ) from error
    # All is written: drop the notes of the work, and let the folder appear whole.
    discard(pieces.folder)
    (partial_folder / "export.json").unlink()
    discard(path)
    partial_folder.rename(path)
    return Exported(path, int(source.episode_ends[-1]), len(source.table))


def _cut(source: Source) -> list[range]:
    """The episodes of each file."""
    files: list[range] = []
    begun, first = 0, 0
    for episode, end in enumerate(source.episode_ends.tolist()):
        if end - begun >= _FRAMES_PER_FILE or episode == len(source.table) - 1:
            files.append(range(first, episode + 1))
            begun, first = end, episode + 1
    return files


def sentences(source: Source) -> list[str]:
    """The distinct sentences, LeRobot's tasks, by first use."""
    return list(dict.fromkeys(source.table.instruction.tolist()))


class _FileWriter:
    """Writes data files by their numbers."""

    def __init__(self, source: Source, folder: Path, files: Sequence[range]) -> None:
        self._source, self._folder, self._files = source, folder, files
        self._features = {**source.features, **lerobot.index_features()}
        self._task_of = {sentence: place for place, sentence in enumerate(sentences(source))}

    def do(self, number: int) -> Result:
        """One file; returns its statistics."""
        sums, schema = Sums(), lerobot.arrow_schema(self._features)
        with (
            replacing(self._folder / lerobot.place(lerobot.DATA_PATH, number)) as temporary,
            pq.ParquetWriter(temporary, schema, compression="snappy") as writer,
        ):
            # An episode is a row group: it can be read alone.
            for episode in self._files[number]:
                writer.write_table(self._episode(episode, schema, sums))
        return {"sums": sums.to_dict()}

    def _episode(self, episode: int, schema: pa.Schema, sums: Sums) -> pa.Table:
        source, table = self._source, self._source.table
        columns: dict[str, list[Any]] = {name: [] for name in self._features}
        for frame_index, row in enumerate(_rows(source, episode)):
            try:
                frame: dict[str, Any] = dict(source.frame(row))
            except BadFrameError as error:
                raise UserError(
                    f"{error}; a dataset has whole episodes only: repair it, or convert it to a "
                    "store, which leaves bad episodes out, and export that"
                ) from error
            # LeRobot's own columns: time within the episode, places within the dataset.
            frame |= {
                "timestamp": frame_index / lerobot.FPS,
                "frame_index": frame_index,
                "episode_index": episode,
                "index": row,
                "task_index": self._task_of[str(table.instruction[episode])],
            }
            for name, feature in self._features.items():
                is_index = name in lerobot.INDICES
                value = frame[name]
                columns[name].append(value if is_index else lerobot.encode(value, feature))
                sums.add(name, value, feature)
        return pa.table(columns, schema=schema)

    def close(self) -> None:
        """Nothing is held."""


def _rows(source: Source, episode: int) -> range:
    ends = source.episode_ends
    return range(int(ends[episode - 1]) if episode else 0, int(ends[episode]))


def _write_metadata(
    source: Source, folder: Path, files: Sequence[range], done: Mapping[int, Result]
) -> None:
    """All but the data; ``info.json`` comes last, since LeRobot finds a dataset by it."""
    features = {**source.features, **lerobot.index_features()}
    frames = int(source.episode_ends[-1])
    tasks = sentences(source)
    tables = {
        Path(lerobot.TASKS_PATH): lerobot.tasks_table(tasks),
        lerobot.place(lerobot.EPISODES_PATH, 0): pa.table(_episodes(source, files)),
    }
    for path, content in tables.items():
        with replacing(folder / path) as temporary:
            pq.write_table(content, temporary)
    # Each file kept its sums, so the statistics need no second pass over the images.
    sums = (done[number]["sums"] for number in sorted(done))
    write_json(folder / lerobot.STATS_PATH, merged(sums, features, frames))
    if source.cameras is not None:
        write_json(folder / lerobot.CALVIN_PATH, source.cameras)
    splits = {
        _SPLITS[name]: range(ones[0], ones[-1] + 1)
        for name, group in itertools.groupby(
            range(len(source.table)), lambda episode: str(source.table.split[episode])
        )
        if (ones := list(group))
    }
    write_json(
        folder / lerobot.INFO_PATH, lerobot.info(features, frames, len(tasks), splits), indent=4
    )


def _episodes(source: Source, files: Sequence[range]) -> dict[str, list[Any]]:
    """The columns of the episodes' table; CALVIN's own are ``calvin/...``."""
    table = source.table
    places = [divmod(n, lerobot.FILES_PER_CHUNK) for n, ones in enumerate(files) for _ in ones]
    rows = [_rows(source, episode) for episode in range(len(table))]
    return {
        "episode_index": list(range(len(table))),
        "tasks": [[sentence] for sentence in table.instruction.tolist()],
        "length": [len(row) for row in rows],
        "data/chunk_index": [chunk for chunk, _ in places],
        "data/file_index": [file for _, file in places],
        "dataset_from_index": [row.start for row in rows],
        "dataset_to_index": [row.stop for row in rows],
        "meta/episodes/chunk_index": [0] * len(rows),
        "meta/episodes/file_index": [0] * len(rows),
        "calvin/split": table.split.tolist(),
        "calvin/task": table.task.tolist(),
        "calvin/first_frame": table.first_frame.tolist(),
    }
