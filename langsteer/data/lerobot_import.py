"""Make a CALVIN folder of a LeRobot dataset v3.0 with depth; its conversion makes a store.

`langsteer.data.lerobot_features` matches its features to CALVIN's arrays. Its cameras come from a
file, from ``meta/calvin.json`` (our export writes that), or from intrinsics and poses in its
frames. Frames get new numbers; each episode becomes a recording.

Example::

    import_dataset(Path("data/lerobot"), Path("calvin_again"))
    import_dataset(foreign, target, {"depth_static": "observation.images.depth"}, cameras)
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from langsteer.calvin.dataset import Annotation
from langsteer.calvin.dataset_writer import (
    achieved_actions,
    relative_actions,
    save_frame,
    save_metadata,
)
from langsteer.calvin.instructions import task_of
from langsteer.data import lerobot_format as lerobot
from langsteer.data.lerobot_features import OF_CAMERAS, STATIC_PLANES, cameras_of, choose
from langsteer.data.store import partial_path
from langsteer.errors import UserError
from langsteer.files import discard
from langsteer.progress import track
from langsteer.reading import read_json, read_yaml

_GAP = 1  # between recordings: no window goes from one to the next
_SCENE = "calvin_scene_D"  # of a file that names none
_LARGEST = 1.001  # of a relative action, rounded to float32
_Episode = Mapping[str, Any]


@dataclass(frozen=True)
class _Dataset:
    """A LeRobot dataset: its folder, ``info.json``, the arrays to take, sentences and episodes."""

    path: Path
    info: Mapping[str, Any]
    chosen: Mapping[str, str]
    sentences: list[str]
    episodes: list[_Episode]

    @property
    def features(self) -> Mapping[str, lerobot.Feature]:
        features: Mapping[str, lerobot.Feature] = self.info["features"]
        return features

    def split_of(self, episode: _Episode) -> str:
        """``training`` for our export's and for LeRobot's ``train``, else ``validation``."""
        if "calvin/split" in episode:
            return str(episode["calvin/split"])
        number = episode["episode_index"]
        for name, interval in (self.info.get("splits") or {}).items():
            first, _, end = str(interval).partition(":")
            if int(first or 0) <= number < int(end or number + 1):
                return "training" if name == "train" else "validation"
        return "training"


def import_dataset(
    path: Path,
    target: Path,
    named: Mapping[str, str] | None = None,
    cameras: Path | None = None,
) -> int:
    """Write the CALVIN folder; returns its number of frames.

    Args:
        path: the LeRobot dataset.
        target: the folder to make.
        named: features of other names than ours, see `lerobot_features.DEFAULTS`.
        cameras: CALVIN's ``merged_config.yaml`` of these images, in place of the dataset's own.

    Raises:
        UserError: the dataset is of another version, lacks something, or is damaged; or something
            is at ``target``.
    """
    if target.exists():
        raise UserError(f"{target}: exists already; choose another folder")
    dataset = _open(path, named or {})
    config = _config(dataset, cameras)
    # A killed import begins anew, and half a folder never looks whole.
    unfinished = partial_path(target)
    discard(unfinished)
    frames = 0
    for split in ("training", "validation"):
        episodes = [one for one in dataset.episodes if dataset.split_of(one) == split]
        if episodes:
            frames += _write_split(dataset, config, episodes, unfinished / split)
    unfinished.rename(target)
    return frames


def _open(path: Path, named: Mapping[str, str]) -> _Dataset:
    try:
        info = read_json(path / lerobot.INFO_PATH)
        version = info["codebase_version"]
        if version != lerobot.VERSION:
            raise UserError(f"version {version}; convert it to {lerobot.VERSION} first")
        chosen = choose(info["features"], named)
        tasks = pq.read_table(path / lerobot.TASKS_PATH).sort_by("task_index")
        # pandas names an index without a name so.
        words = "task" if "task" in tasks.column_names else "__index_level_0__"
        files = sorted((path / "meta" / "episodes").rglob("*.parquet"))
        episodes = [row for file in files for row in pq.read_table(file).to_pylist()]
        if not episodes:
            raise UserError("it has no episodes")
        return _Dataset(path, info, chosen, tasks[words].to_pylist(), episodes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a LeRobot dataset {lerobot.VERSION} ({error!r})") from error


def _config(dataset: _Dataset, file: Path | None) -> Mapping[str, Any]:
    """CALVIN's configuration of the cameras, checked against the images' sizes."""
    ours = dataset.path / lerobot.CALVIN_PATH
    source = file or (ours if ours.is_file() else dataset.path)
    try:
        if source == dataset.path:
            told = {name: key for name, key in dataset.chosen.items() if name in OF_CAMERAS}
            first = _rows(dataset, dataset.episodes[0], told.values())[0]
            values = {
                name: np.asarray(first[key], np.float64).reshape(OF_CAMERAS[name])
                for name, key in told.items()
            }
            config: Mapping[str, Any] = cameras_of(dataset.chosen, dataset.features, values)
        else:
            # YAML would take some of JSON's numbers for words.
            text = source.suffix == ".json"
            config = (read_json if text else read_yaml)(source)
        for name, key in dataset.chosen.items():
            if not name.startswith(("rgb_", "depth_")):
                continue
            node = config["cameras"][name.partition("_")[2]]
            size = lerobot.image_shape(dataset.features[key])[:2]
            if size != (node["height"], node["width"]):
                raise UserError(
                    f"{key} has {size[0]} x {size[1]} pixels, the cameras of {source} have "
                    f"{node['height']} x {node['width']}; give those of the images with --cameras"
                )
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{source}: no cameras in CALVIN's format ({error!r:.200})") from error
    return config


def _write_split(
    dataset: _Dataset, config: Mapping[str, Any], episodes: list[_Episode], folder: Path
) -> int:
    """Write the episodes of a split; returns its number of frames."""
    number = 0
    ranges, annotations = [], []
    for episode in track(episodes, f"importing {folder.name}", unit="episode"):
        first, told = number, []
        for frame, task_index in _frames(dataset, episode):
            save_frame(folder, number, frame)
            told.append(task_index)
            number += 1
        ranges.append((first, number - 1))
        annotations += _annotations(dataset, episode, np.array(told), first)
        number += _GAP
    scene = str(config["scene"].get("name", _SCENE))
    observed = [name for name in ("robot_obs", "scene_obs") if name in dataset.chosen]
    save_metadata(folder, ranges, annotations, config, scene, observed=observed)
    return number - _GAP * len(episodes)


def _annotations(
    dataset: _Dataset, episode: _Episode, told: NDArray[np.int64], first: int
) -> list[Annotation]:
    """A window for each run of frames with one sentence."""
    starts = [0, *(np.flatnonzero(np.diff(told)) + 1).tolist()]
    found = []
    for start, end in zip(starts, [*starts[1:], len(told)], strict=True):
        sentence = dataset.sentences[told[start]]
        # Ours says the task; others say words, and the name is the task with this phrasing.
        named = episode.get("calvin/task", task_of(sentence) or "_".join(sentence.split()))
        if named:
            found.append(Annotation(first + start, first + end, named, sentence))
    return found


def _rows(dataset: _Dataset, episode: _Episode, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of an episode, of these columns alone: images are most of a file."""
    place = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
    file = dataset.path / dataset.info["data_path"].format(**place)
    try:
        wanted = [("episode_index", "=", episode["episode_index"])]
        rows: list[dict[str, Any]] = pq.read_table(
            file, columns=[*keys, "task_index"], filters=wanted
        ).to_pylist()
        return rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: damaged ({error}); get the dataset again") from error


def _frames(dataset: _Dataset, episode: _Episode) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """The frames of an episode under CALVIN's names, each with its sentence's number."""
    taken = {name: key for name, key in dataset.chosen.items() if name not in OF_CAMERAS}
    rows = _rows(dataset, episode, taken.values())
    try:
        moved = _actions(dataset, rows)
        for row, cells in enumerate(rows):
            arrays = {
                name: lerobot.decode(cells[key], dataset.features[key])
                for name, key in taken.items()
            }
            for name in arrays.keys() & {"depth_static", "depth_gripper"}:
                # A sensor says 0 where it measures nothing; far away is in no workspace.
                unseen = ~(arrays[name] > 0)
                arrays[name] = np.where(unseen, np.float32(STATIC_PLANES[1]), arrays[name])
            yield (
                arrays | {name: values[row] for name, values in moved.items()},
                cells["task_index"],
            )
    except (ValueError, IndexError, UserError) as error:
        raise UserError(f"{dataset.path}, episode {episode['episode_index']}: {error}") from error


def _actions(dataset: _Dataset, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """CALVIN's two kinds of actions (T, 7); what the dataset lacks follows from the states.

    The last frame's action then leads to itself.
    """
    chosen = dataset.chosen
    given = {
        name: np.array([row[chosen[name]] for row in rows], np.float64).reshape(len(rows), -1)
        for name in ("robot_obs", "actions", "rel_actions")
        if name in chosen
    }
    states = given.pop("robot_obs")
    actions, achieved = achieved_actions(np.concatenate([states, states[-1:]]))
    if "actions" in given:
        achieved = relative_actions(states, given["actions"])
    relative = given.get("rel_actions", achieved)
    largest = float(np.abs(relative).max())
    if largest > _LARGEST:
        key = chosen["rel_actions"]
        raise UserError(
            f"{key} has {largest:g}, CALVIN's relative actions are -1 to 1; if these are absolute "
            f"poses, say --features actions={key}; otherwise rel_actions=none takes the motion of "
            "the states"
        )
    return {"actions": given.get("actions", actions), "rel_actions": relative}
