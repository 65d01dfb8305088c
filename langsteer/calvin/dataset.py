"""Read and check a CALVIN folder.

The folder has ``training/`` and ``validation/``, or one of them. In each: a file
``episode_<number>.npz`` for each frame at 30 Hz, ``ep_start_end_ids.npy`` with the first and last
frame of each play episode, ``lang_annotations/auto_lang_ann.npy`` with the sentences, and
``.hydra/merged_config.yaml`` with the cameras. `langsteer.calvin.dataset_writer` writes the same.
The zip that CALVIN is distributed in will do as well, see `langsteer.calvin.archive`.

Example::

    for split in open_dataset(Path("calvin_debug_dataset")):
        for annotation in read_annotations(split):
            frames = range(annotation.start, annotation.end)
            robot_obs = read_frame(split.frame_path(frames[0]), ["robot_obs"], split.config)
"""

import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.archive import ArchivePath, open_archive
from langsteer.calvin.cameras import PIXEL_CENTRE, Camera, FixedCamera, Vector
from langsteer.calvin.npy import UnreadableFileError, load_npy, read_npz
from langsteer.errors import UserError
from langsteer.reading import IrregularFileError, read_yaml
from langsteer.settings import is_of

Folder = Path | ArchivePath
"""A folder or file on the disk or in a zip."""

SPLITS = ("training", "validation")
ANNOTATIONS = Path("lang_annotations") / "auto_lang_ann.npy"
CONFIG = Path(".hydra") / "merged_config.yaml"
RANGES = Path("ep_start_end_ids.npy")

VECTORS = {"actions": 7, "rel_actions": 7, "robot_obs": 15, "scene_obs": 24}
"""Length of each vector of a frame. Official files hold float64; the official README says float32.
Both are read."""

METRES_PER_UNIT, RADIANS_PER_UNIT = 0.02, 0.05
"""Size of a relative action of 1, from CALVIN's robot (``max_rel_pos``, ``max_rel_orn``)."""

_FRAME_NAME = re.compile(r"episode_([0-9]{7,15})\.npz")
_MOST_FRAMES = 10**15


class BadFrameError(ValueError):
    """A frame's file is missing, damaged, or unlike CALVIN's; the message says which and why."""


@dataclass(frozen=True)
class DatasetConfig:
    """How the images were rendered, from ``.hydra/merged_config.yaml``.

    Attributes:
        static: the static camera.
        gripper: the gripper camera.
        renderer: "egl" or "tiny"; decides the place of a pixel's sample.
        base_position: of the robot's base, metres, world frame.
    """

    static: FixedCamera
    gripper: Camera
    renderer: str
    base_position: Vector

    @property
    def pixel_centre(self) -> tuple[float, float]:
        """The renderer's sample of a pixel, see `calvin.cameras.PIXEL_CENTRE`."""
        return PIXEL_CENTRE[self.renderer]

    def image_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an image in a frame's file, e.g. of "depth_static" or "rgb_gripper"."""
        kind, _, which = name.partition("_")
        camera: Camera = self.static if which == "static" else self.gripper
        size = (camera.height, camera.width)
        return (*size, 3) if kind == "rgb" else size


@dataclass(frozen=True, order=True)
class Annotation:
    """A window of frames with one task done: ``start`` to ``end``, ``end`` exclusive."""

    start: int
    end: int
    task: str
    instruction: str


@dataclass(frozen=True)
class Split:
    """``training`` or ``validation`` of a dataset."""

    name: str
    folder: Folder
    config: DatasetConfig

    def frame_path(self, number: int) -> Folder:
        """The file of a frame."""
        return self.folder / frame_name(number)


def frame_name(number: int) -> str:
    """File name of a frame: ``episode_0358482.npz``."""
    return f"episode_{number:07d}.npz"


def open_dataset(path: Path, splits: Sequence[str] | None = None) -> list[Split]:
    """The splits of a CALVIN folder with their cameras.

    Args:
        path: the folder of ``training/`` and ``validation/``, or a zip of it.
        splits: those to open; None takes those present.

    Raises:
        UserError: no such folder, not CALVIN's, or without the configuration of its cameras.
    """
    root = _open_root(path)
    present = [name for name in SPLITS if (root / name).is_dir()]
    if not present:
        hint = f"; did you mean {root.parent}?" if root.name in SPLITS else ""
        raise UserError(f"{root}: not a CALVIN dataset, it has no training/ or validation/{hint}")
    for name in splits or ():
        if name not in SPLITS:
            raise UserError(f"split {name!r}: CALVIN has {' and '.join(SPLITS)}")
        if name not in present:
            raise UserError(f"{root}: no {name}/; there is {', '.join(present)}")
    chosen = [name for name in present if splits is None or name in splits]
    return [Split(name, root / name, read_config(root / name)) for name in chosen]


def _open_root(path: Path) -> Folder:
    """The folder of the splits; in a zip, wherever it lies."""
    if path.is_dir():
        return path
    if not path.exists():
        raise UserError(
            f"{path}: no such folder; give the one that holds training/ and validation/"
        )
    archive = open_archive(path)
    roots = {str(one.parent): one.parent for one in archive.below() if one.name in SPLITS}
    if len(roots) > 1:
        raise UserError(
            f"{path}: several datasets, {', '.join(roots)}; unpack the one that you want"
        )
    return next(iter(roots.values()), archive)


def read_config(folder: Folder) -> DatasetConfig:
    """The cameras of a split; raises `UserError` if they are missing or make no sense."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{path}: missing; it tells the cameras that the frames were rendered with. The "
            f"official archives contain it (a hidden folder: copy with `cp -a`). Copy "
            f"{CONFIG.parent}/ from the archive or from the dataset's other split"
        )
    try:
        tree = read_yaml(path)
        cameras = tree["cameras"]
        return DatasetConfig(
            static=FixedCamera(
                **_camera(cameras["static"]),
                look_from=_vector(cameras["static"]["look_from"]),
                look_at=_vector(cameras["static"]["look_at"]),
                up=_vector(cameras["static"]["up_vector"]),
            ),
            gripper=Camera(**_camera(cameras["gripper"])),
            renderer="egl" if tree["env"]["use_egl"] else "tiny",
            base_position=_vector(tree["scene"]["robot_base_position"]),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
        raise UserError(
            f"{path}: not the configuration of a CALVIN dataset ({error!r:.200}); copy it again "
            "from the archive"
        ) from error


def read_ranges(split: Split) -> NDArray[np.int64]:
    """First and last frame (both inclusive) of each play episode: (K, 2) int64, sorted, distinct.

    ``ep_lens.npy`` says the same and is not read: in the official debug dataset it is a scalar.

    Raises `UserError` if the file is missing or not such a table.
    """
    path = split.folder / RANGES
    table = _load(path, "the first and last frame of each episode")
    if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
        raise UserError(f"{path}: {table.dtype} {table.shape}, expected integers (K, 2)")
    table = table.astype(np.int64)  # in which unsigned numbers beyond its range are negative
    if (table < 0).any() or (table[:, 0] > table[:, 1]).any() or (table >= _MOST_FRAMES).any():
        raise UserError(f"{path}: an episode ends before it starts, or has a number of no frame")
    return np.unique(table, axis=0)


def read_annotations(split: Split) -> list[Annotation]:
    """The annotated windows, in the file's order, repetitions included.

    Raises `UserError` if the file is missing or holds something else.
    """
    path = split.folder / ANNOTATIONS
    if not path.is_file():
        raise UserError(
            f"{path}: missing, so it is not known which windows are which task. Get the "
            "dataset's lang_annotations/, or convert whole play episodes with --episodes play"
        )
    content = _load(path, "the annotations")
    try:
        tree = content.item()
        windows, language = tree["info"]["indx"], tree["language"]
        rows = list(zip(windows, language["task"], language["ann"], strict=True))
        return [
            Annotation(_frame(start), _frame(end), _text(task), _text(sentence))
            for (start, end), task, sentence in rows
        ]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path}: not CALVIN's annotations, a dictionary with language.task, language.ann and "
            f"info.indx of one length ({error!r:.200}); get the file again"
        ) from error


def list_frames(split: Split) -> NDArray[np.int64]:
    """Numbers (M,) of the frames with files, sorted."""
    matches = map(_FRAME_NAME.fullmatch, _file_names(split.folder))
    # One number after the other: CALVIN has millions, and their names would fill memory.
    numbers = np.fromiter((int(match[1]) for match in matches if match), dtype=np.int64)
    return np.unique(numbers)


def _file_names(folder: Folder) -> Iterator[str]:
    """Names of what is in a folder."""
    if isinstance(folder, ArchivePath):
        yield from folder.names()
    else:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)


def read_frame(
    path: Folder, names: Iterable[str], config: DatasetConfig
) -> dict[str, NDArray[Any]]:
    """Some arrays of a frame, checked for shape, dtype and sense.

    Args:
        path: the frame's file.
        names: of `VECTORS`, "rgb_static", "rgb_gripper", "depth_static", "depth_gripper".
        config: has the images' sizes.

    Returns:
        Vectors as float32 or float64 (D,), depth as float32 (H, W) in metres, colour as uint8
        (H, W, 3); read-only.

    Raises:
        BadFrameError: the file is missing or damaged, an array has another shape or dtype, a
            vector is not finite, or a depth is not a positive number.
        UserError: the file is there, and the system does not let it be read.
    """
    try:
        arrays = read_npz(path, names)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BadFrameError(f"{path}: missing") from error
    except IrregularFileError as error:
        raise BadFrameError(str(error)) from error
    except OSError as error:
        # A network file system may answer again later: no reason to give the frame up.
        raise UserError(
            f"{path}: cannot be read ({error}); when it can, the same command goes on"
        ) from error
    except UnreadableFileError as error:
        raise BadFrameError(f"{path}: {error}") from error
    for name, array in arrays.items():
        problem = _problem(name, array, config)
        if problem:
            raise BadFrameError(f"{path}: {name} {problem}")
    return arrays


def _problem(name: str, array: NDArray[Any], config: DatasetConfig) -> str | None:
    """What is wrong with an array of a frame, or None."""
    kind = name.partition("_")[0]
    if name in VECTORS:
        shape: tuple[int, ...] = (VECTORS[name],)
        dtypes = [np.dtype(np.float64), np.dtype(np.float32)]
    else:
        shape = config.image_shape(name)
        dtypes = [np.dtype(np.uint8 if kind == "rgb" else np.float32)]
    if array.shape != shape:
        return f"has shape {array.shape}, expected {shape}"
    if array.dtype not in dtypes:
        return f"is {array.dtype}, expected {dtypes[0]}"
    # Comparisons with NaN are false: so one minimum and one maximum find every NaN too.
    if kind == "depth" and not (array.min() > 0 and array.max() < np.inf):
        return "has depths that are zero, negative or no numbers"
    if name in VECTORS and not np.isfinite(array).all():
        return "has values that are no numbers"
    return None


def _load(path: Folder, what: str) -> NDArray[Any]:
    """`load_npy` with its failures as `UserError`."""
    try:
        return load_npy(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; it tells {what}. Is the archive complete?") from error
    except IrregularFileError:
        raise
    except (UnreadableFileError, OSError) as error:
        raise UserError(f"{path}: {error}. Get the file again from the dataset's source") from error


def _text(value: object) -> str:
    """A string of the annotations; raises TypeError for anything else."""
    if not isinstance(value, str) or not is_of(str(value), str):
        raise TypeError(f"{reprlib.repr(value)} is not a text")
    return str(value)


def _frame(value: Any) -> int:  # noqa: ANN401 - Python's and NumPy's numbers
    """A frame's number of the annotations; raises ValueError or TypeError for anything else."""
    number = int(value)
    if number != value or abs(number) >= _MOST_FRAMES:
        raise ValueError(f"{reprlib.repr(value)} is no frame's number")
    return number


def _camera(node: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Camera` from the node of a camera in the configuration."""
    width, height = node["width"], node["height"]
    if type(width) is not int or type(height) is not int:
        raise ValueError(f"an image of {width!r:.20} x {height!r:.20} pixels")
    if float(node["aspect"]) != width / height:
        raise ValueError(f"aspect {node['aspect']!r:.20} of {width} x {height} pixels")
    return {
        "width": width,
        "height": height,
        "fov": float(node["fov"]),
        "near": float(node["nearval"]),
        "far": float(node["farval"]),
    }


def _vector(values: Iterable[float]) -> Vector:
    """Three numbers; raises ValueError for fewer or more."""
    x, y, z = (float(value) for value in values)
    return x, y, z
