"""Write a dataset in CALVIN's format, for the recorder of demonstrations.

Frames can be written in any order and by several processes. The metadata come last and are read off
the frames, so a killed recorder goes on from the frames present. All official arrays are written
but the tactile ones.

Example::

    actions, rel_actions = achieved_actions(robot_obs)              # robot_obs (T + 1, 15)
    for t in range(T):
        save_frame(root / "training", t, {"robot_obs": robot_obs[t], "actions": actions[t], ...})
    save_metadata(root / "training", [(0, T - 1)], annotations, merged_config("tiny"))
"""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml
from numpy.typing import NDArray

from langsteer.calvin.angles import wrapped
from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA, Camera
from langsteer.calvin.dataset import (
    ANNOTATIONS,
    CONFIG,
    METRES_PER_UNIT,
    RADIANS_PER_UNIT,
    RANGES,
    VECTORS,
    Annotation,
    DatasetConfig,
    frame_name,
    read_config,
    read_frame,
)
from langsteer.calvin.kinematics import BASE_POSITION
from langsteer.files import replacing
from langsteer.sentences import EMBEDDING_DIM, HashedWords, SentenceEncoder

IMAGES = {
    "rgb_static": np.uint8,
    "rgb_gripper": np.uint8,
    "depth_static": np.float32,
    "depth_gripper": np.float32,
}
OPTIONAL = ("scene_obs", "rgb_gripper", "depth_gripper")
"""Absent from recordings of other robots and cameras; conversion can do without them."""


def achieved_actions(
    robot_obs: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CALVIN's ``actions`` and ``rel_actions`` of a recorded motion.

    The action of a frame is the next frame's TCP pose with the next frame's gripper command. The
    relative action is the step there in units of the largest step, clipped to [-1, 1].

    Args:
        robot_obs: (T + 1, 15), consecutive frames of one episode.

    Returns:
        actions (T, 7) float64 in metres and radians, rel_actions (T, 7) float64 in [-1, 1].
    """
    now, later = np.asarray(robot_obs[:-1], np.float64), np.asarray(robot_obs[1:], np.float64)
    actions = np.concatenate([later[:, :6], later[:, 14:15]], axis=1)
    return actions, relative_actions(now, actions)


def relative_actions(
    robot_obs: NDArray[np.floating], actions: NDArray[np.floating]
) -> NDArray[np.float64]:
    """CALVIN's ``rel_actions`` (T, 7) of absolute ``actions`` (T, 7) at ``robot_obs`` (T, 15)."""
    step = np.asarray(actions, np.float64)[:, :6] - np.asarray(robot_obs, np.float64)[:, :6]
    # The short way round: roll flips between -pi and pi.
    step[:, 3:] = wrapped(step[:, 3:])
    scale = np.repeat([METRES_PER_UNIT, RADIANS_PER_UNIT], 3)
    return np.concatenate([np.clip(step / scale, -1, 1), actions[:, 6:]], axis=1)


def save_frame(folder: Path, number: int, frame: Mapping[str, NDArray[Any]]) -> Path:
    """Write the file of a frame; the caller flushes it to disk (`langsteer.files.sync`).

    Args:
        folder: the split's folder; made if need be.
        number: of the frame, unique in the dataset.
        frame: each of `VECTORS` (written as float64) and of `IMAGES`, some of `OPTIONAL`.

    Raises:
        ValueError: an array is missing, unknown, or an image has another dtype.
    """
    expected = {**dict.fromkeys(VECTORS, np.float64), **IMAGES}
    if frame.keys() - expected.keys() or expected.keys() - frame.keys() - set(OPTIONAL):
        raise ValueError(f"a frame has {sorted(frame)}, expected {sorted(expected)}")
    arrays: dict[str, Any] = {}
    for name, dtype in expected.items():
        if name not in frame:
            continue
        array = np.asarray(frame[name], dtype=np.float64 if name in VECTORS else None)
        if array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype}, expected {np.dtype(dtype)}")
        arrays[name] = array
    path = folder / frame_name(number)
    with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
        _save_npz(file, arrays)
    return path


def _save_npz(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """`numpy.savez_compressed` at zlib's fastest level: a third of the time, a tenth more bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def save_metadata(
    folder: Path,
    episodes: Sequence[tuple[int, int]],
    annotations: Sequence[Annotation],
    config: Mapping[str, object],
    scene: str = "calvin_scene_D",
    evaluation_sentences: Mapping[str, str] | None = None,
    encoder: SentenceEncoder | None = None,
    observed: Sequence[str] = ("robot_obs", "scene_obs"),
) -> None:
    """Write everything of a split besides its frames; these must be there already.

    Args:
        folder: the split's folder.
        episodes: first and last frame, both inclusive, of each episode.
        annotations: windows within the episodes.
        config: see `merged_config`.
        scene: CALVIN's name of the scene.
        evaluation_sentences: task to sentence; CALVIN's validation split has a file of their
            embeddings.
        encoder: of the sentences, for the embeddings in the official files; by default
            `HashedWords`. LangSteer itself reads the sentences and not the embeddings.
        observed: the vectors of the frames to take statistics of, besides actions.

    Raises:
        BadFrameError: a frame of an episode is missing or damaged.
    """
    encoder = encoder or HashedWords()
    table = np.array(sorted(episodes), dtype=np.int64).reshape(-1, 2)
    # The configuration comes first: reading the frames below needs its cameras.
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    with replacing(folder / "statistics.yaml") as temporary:
        statistics = _statistics(folder, table, read_config(folder), observed)
        temporary.write_text(yaml.safe_dump(statistics, sort_keys=False), encoding="utf-8")
    _save_npy(folder / "ep_lens.npy", table[:, 1] - table[:, 0] + 1)
    _save_npy(folder / "scene_info.npy", {scene: [int(table.min()), int(table.max())]})
    _save_npy(folder / ANNOTATIONS, _annotation_tree(annotations, encoder))
    if evaluation_sentences is not None:
        tree = {
            task: {"emb": _embeddings(encoder, [sentence])[None], "ann": [sentence]}
            for task, sentence in evaluation_sentences.items()
        }
        _save_npy(folder / ANNOTATIONS.with_name("embeddings.npy"), tree)
    # Last, since a folder with its table of recordings counts as complete.
    _save_npy(folder / RANGES, table)


def merged_config(
    renderer: str,
    scene: str = "calvin_scene_D",
    static: Camera = STATIC_CAMERA,
    gripper: Camera = GRIPPER_CAMERA,
) -> dict[str, Any]:
    """The part of CALVIN's ``merged_config.yaml`` that describes the images.

    Args:
        renderer: "egl" or "tiny".
        scene: CALVIN's name of the scene.
        static: the static camera, a `FixedCamera`.
        gripper: the gripper camera.
    """
    return {
        "cameras": {
            "static": {"name": "static", **_camera_node(static)},
            "gripper": {"name": "gripper", **_camera_node(gripper)},
        },
        "env": {"use_egl": renderer == "egl", "control_freq": 30, "bullet_time_step": 240.0},
        "scene": {"name": scene, "robot_base_position": list(BASE_POSITION)},
    }


def _embeddings(encoder: SentenceEncoder, sentences: Sequence[str]) -> NDArray[np.float32]:
    """(N, 384) float32; equal sentences are looked at once."""
    distinct, places = np.unique(np.array(sentences, dtype=np.str_), return_inverse=True)
    return encoder.encode(distinct.tolist()).astype(np.float32).reshape(-1, EMBEDDING_DIM)[places]


def _annotation_tree(annotations: Sequence[Annotation], encoder: SentenceEncoder) -> dict[str, Any]:
    """The dictionary of ``auto_lang_ann.npy``."""
    sentences = [annotation.instruction for annotation in annotations]
    return {
        "language": {
            "ann": sentences,
            "task": [annotation.task for annotation in annotations],
            "emb": _embeddings(encoder, sentences)[:, None],
        },
        "info": {
            "episodes": [],
            "indx": [(annotation.start, annotation.end) for annotation in annotations],
        },
    }


def _statistics(
    folder: Path, episodes: NDArray[np.int64], config: DatasetConfig, observed: Sequence[str]
) -> dict[str, Any]:
    """The content of ``statistics.yaml``, by one pass with running sums."""
    names = (*observed, "actions")
    count = 0
    sums = {name: np.zeros((2, VECTORS[name])) for name in names}
    low, high = np.full(VECTORS["actions"], np.inf), np.full(VECTORS["actions"], -np.inf)
    for first, last in episodes.tolist():
        for number in range(first, last + 1):
            # Frame by frame: a dataset does not fit into memory, two sums do.
            frame = read_frame(folder / frame_name(number), names, config)
            for name in names:
                sums[name] += frame[name], frame[name] ** 2
            low = np.minimum(low, frame["actions"])
            high = np.maximum(high, frame["actions"])
            count += 1
    statistics: dict[str, Any] = {}
    for name in observed:
        mean, square = sums[name] / max(count, 1)
        node = {
            "_target_": "calvin_agent.utils.transforms.NormalizeVector",
            "mean": mean.tolist(),
            "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        }
        statistics[name] = [node]
    return statistics | {"act_min_bound": low.tolist(), "act_max_bound": high.tolist()}


def _camera_node(camera: Camera) -> dict[str, Any]:
    """A camera as the configuration writes it."""
    node: dict[str, Any] = {
        "fov": camera.fov,
        "aspect": camera.width / camera.height,
        "nearval": camera.near,
        "farval": camera.far,
        "width": camera.width,
        "height": camera.height,
    }
    names = {"look_from": "look_from", "look_at": "look_at", "up": "up_vector"}
    for attribute, key in names.items():
        if hasattr(camera, attribute):
            node[key] = list(getattr(camera, attribute))
    return node


def _save_npy(path: Path, content: object) -> None:
    """Write an array, or a tree of containers and arrays, as ``.npy``."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        array = np.asanyarray(content)
        if not array.dtype.hasobject:
            np.lib.format.write_array(file, array, allow_pickle=False)
            return
        header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        # Protocol 3 and NumPy 1's name of its module, like the official files. CALVIN's own code
        # runs with versions of NumPy without the new name; NumPy 2 knows both.
        pickled = pickle.dumps(array, protocol=3)
        file.write(pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
