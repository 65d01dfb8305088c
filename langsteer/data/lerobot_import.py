"""Make a CALVIN folder of a LeRobot dataset v3.0 with depth; its conversion makes a store.

It reads datasets with the features of `langsteer.data.lerobot_export` from a CALVIN folder, and
with its ``meta/calvin.json`` for the cameras. Frames are numbered anew; each episode is a recording
of its own.

Example::

    import_dataset(Path("data/lerobot"), Path("calvin_again"))
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from langsteer.calvin.dataset import Annotation
from langsteer.calvin.dataset_writer import achieved_actions, save_frame, save_metadata
from langsteer.data import lerobot_format as lerobot
from langsteer.data.store import partial_path
from langsteer.errors import UserError
from langsteer.files import discard
from langsteer.progress import track
from langsteer.reading import IrregularFileError, read_json

_GAP = 1  # between recordings: no window goes from one to the next
_NEEDED = {
    **{key: f"rgb_{name}" for name, key in lerobot.IMAGES.items()},
    **{key: f"depth_{name}" for name, key in lerobot.DEPTHS.items()},
    lerobot.STATE: "robot_obs",
    lerobot.SCENE: "scene_obs",
    lerobot.ACTION: "rel_actions",
}
"""LeRobot's name to CALVIN's."""


@dataclass(frozen=True)
class _Dataset:
    """A LeRobot dataset: its folder, ``info.json``, cameras, sentences and episodes."""

    path: Path
    info: Mapping[str, Any]
    cameras: Mapping[str, Any]
    sentences: list[str]
    episodes: list[dict[str, Any]]


def import_dataset(path: Path, target: Path) -> int:
    """Write the CALVIN folder; returns its number of frames.

    Args:
        path: the LeRobot dataset.
        target: the folder to make.

    Raises:
        UserError: the dataset is of another version, lacks something, or is damaged; or something
            is at ``target``.
    """
    if target.exists():
        raise UserError(f"{target}: exists already; choose another folder")
    dataset = _open(path)
    # A killed import begins anew, and half a folder never looks whole.
    unfinished = partial_path(target)
    discard(unfinished)
    frames = 0
    for split in ("training", "validation"):
        episodes = [one for one in dataset.episodes if one["calvin/split"] == split]
        if episodes:
            frames += _write_split(dataset, episodes, unfinished / split)
    unfinished.rename(target)
    return frames


def _open(path: Path) -> _Dataset:
    try:
        info = read_json(path / lerobot.INFO_PATH)
        version, features = info["codebase_version"], info["features"]
        if version != lerobot.VERSION:
            raise UserError(f"{path}: version {version}; convert it to {lerobot.VERSION} first")
        missing = [key for key in _NEEDED if key not in features]
        videos = [key for key in _NEEDED if features.get(key, {}).get("dtype") == "video"]
        if missing or videos:
            raise UserError(
                f"{path}: {', '.join(missing or videos)} "
                f"{'missing' if missing else 'as video, whose colours and depths are not exact'}; "
                "an import needs images of both cameras in colour and depth, state, scene and "
                "relative actions, as langsteer-export-lerobot writes of a CALVIN folder"
            )
        cameras = read_json(path / lerobot.CALVIN_PATH)
        tasks = pq.read_table(path / lerobot.TASKS_PATH).sort_by("task_index")
        files = sorted((path / "meta" / "episodes").rglob("*.parquet"))
        episodes = [row for file in files for row in pq.read_table(file).to_pylist()]
        return _Dataset(path, info, cameras, tasks["task"].to_pylist(), episodes)
    except IrregularFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: not a LeRobot dataset made by langsteer-export-lerobot ({error!r})"
        ) from error


def _write_split(dataset: _Dataset, episodes: list[dict[str, Any]], folder: Path) -> int:
    """Write the episodes of a split; returns its number of frames."""
    number = 0
    ranges, annotations = [], []
    for episode in track(episodes, f"importing {folder.name}", unit="episode"):
        first = number
        for frame in _frames(dataset, episode):
            save_frame(folder, number, frame)
            number += 1
        ranges.append((first, number - 1))
        task, sentence = episode["calvin/task"], episode["tasks"][0]
        if task:
            annotations.append(Annotation(first, number, task, sentence))
        number += _GAP
    scene = dataset.cameras["scene"]["name"]
    save_metadata(folder, ranges, annotations, dataset.cameras, scene)
    return number - _GAP * len(episodes)


def _frames(dataset: _Dataset, episode: Mapping[str, Any]) -> Iterator[dict[str, NDArray[Any]]]:
    """The frames of an episode under CALVIN's names; the last one's action leads to itself."""
    pattern, features = dataset.info["data_path"], dataset.info["features"]
    place = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
    file = dataset.path / pattern.format(**place)
    try:
        rows = pq.read_table(file, filters=[("episode_index", "=", episode["episode_index"])])
        columns = {key: rows[key].to_pylist() for key in _NEEDED}
        states = np.array(columns[lerobot.STATE])
        # LeRobot holds relative actions only; CALVIN's absolute ones follow from the states.
        actions, _ = achieved_actions(np.concatenate([states, states[-1:]]))
        for row, action in enumerate(actions):
            arrays = {
                name: lerobot.decode(columns[key][row], features[key])
                for key, name in _NEEDED.items()
            }
            yield {**arrays, "actions": action}
    except (OSError, pa.ArrowException, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{file}: damaged ({error}); get the dataset again") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
