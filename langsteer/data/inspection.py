"""Check the content of a store, frame by frame.

Example::

    problems = check_store(open_store("data/calvin.zarr"), Path("calvin_debug_dataset"))
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.dataset import (
    Annotation,
    BadFrameError,
    Split,
    open_dataset,
    read_frame,
)
from langsteer.data.layout import ownerless_bytes, read_layout
from langsteer.data.shard_writer import convert_frame
from langsteer.data.store import Store
from langsteer.data.windows import wanted_windows
from langsteer.data.zarr_arrays import shard_file_name
from langsteer.errors import UserError
from langsteer.progress import progress_bar

_BLOCK = 256  # frames in memory at a time
_MOST_PROBLEMS = 50


def check_store(store: Store, sources: Path | Sequence[Path] = ()) -> list[str]:
    """The faults of a store, in sentences; an empty list if there are none.

    Shapes, dtypes and the increase of ``episode_ends`` were checked on opening. This reads every
    frame: values finite, colours in [0, 1], points inside the box, depth positive. With the CALVIN
    folder at hand it compares: each window with its task and sentence; each frame's action and
    state; image, depth and point cloud of each episode's first frame.

    Args:
        store: to be checked.
        sources: the CALVIN folder of its making, or several in their order; without any, nothing
            is compared.

    Raises:
        UserError: a frame's bytes cannot be decoded, or a source is no CALVIN folder.
    """
    problems: list[str] = []
    roots = (sources,) if isinstance(sources, Path) else tuple(sources)
    total = store.n_frames * (2 if roots else 1)
    with progress_bar(total, "checking", "frame") as bar:
        for problem, frames in _check_values(store):
            problems += problem
            bar.update(frames)
        problems += _check_files(store)
        if roots:
            for problem, frames in _check_against(store, roots):
                problems += problem
                bar.update(frames)
    return problems[:_MOST_PROBLEMS]


def _check_values(store: Store) -> Iterator[tuple[list[str], int]]:
    """Problems of each block of frames by themselves, with the block's number of frames."""
    for start in range(0, store.n_frames, _BLOCK):
        rows = slice(start, min(start + _BLOCK, store.n_frames))
        found: list[str] = []
        for name in store.array_names:
            values = _read(store, name, rows)
            for what, wrong in _wrong_frames(store, name, values):
                if wrong.any():
                    row = start + int(np.flatnonzero(wrong)[0])
                    found.append(f"{name}: {int(wrong.sum())} frames from {row} on: {what}")
        yield found, rows.stop - rows.start


def _check_files(store: Store) -> Iterator[str]:
    """Problems of the shards' files that reading every frame does not show."""
    for name in store.array_names:
        folder = store.path / "data" / name
        layout = read_layout(folder)
        for shard in range(layout.n_shards):
            path = folder / shard_file_name(shard, len(layout.shape))
            extra = ownerless_bytes(path, layout)
            if extra:
                yield f"{path}: {extra} bytes that belong to no frame"


def _wrong_frames(
    store: Store, name: str, values: NDArray[Any]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each kind of problem, and a mask of a block's frames with it."""

    def any_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(mask.reshape(len(mask), -1).any(axis=1))

    if values.dtype.kind == "f":
        yield "values that are no numbers", any_of(~np.isfinite(values))
    if name == "depth":
        yield "depth that is not positive", any_of(values <= 0)
    if name == "action":
        yield "actions outside of [-1, 1]", any_of(np.abs(values) > 1)
    if name == "point_cloud":
        box = np.asarray(store.pipeline.box, dtype=np.float32)
        xyz, rgb = values[..., :3], values[..., 3:]
        yield "points outside of the box", any_of((xyz < box[:, 0]) | (xyz > box[:, 1]))
        yield "colours outside of [0, 1]", any_of((rgb < 0) | (rgb > 1))


def _check_against(store: Store, roots: Sequence[Path]) -> Iterator[tuple[list[str], int]]:
    """Problems of each episode against its source, with its number of frames."""
    splits = {
        (place, split.name): split
        for place, root in enumerate(roots)
        for split in open_dataset(root)
    }
    windows = {name: _windows(split, store) for name, split in splits.items()}
    table, starts = store.episodes, store.episode_starts
    for index in range(len(table)):
        rows = slice(int(starts[index]), int(store.episode_ends[index]))
        name, first = str(table.split[index]), int(table.first_frame[index])
        what = f"episode {index} ({name}, frame {first})"
        window = Annotation(
            first,
            first + rows.stop - rows.start,
            str(table.task[index]),
            str(table.instruction[index]),
        )
        place = (int(table.source[index]), name)
        if place not in splits or window not in windows[place]:
            yield [f"{what}: the source has no such window"], rows.stop - rows.start
            continue
        # The window exists, so its frames can be compared one by one.
        found = _compare(store, splits[place], rows, first)
        yield [f"{what}: {problem}" for problem in found], rows.stop - rows.start


def _windows(split: Split, store: Store) -> set[Annotation]:
    """The possible windows of a store of its kind."""
    settings = store.attributes.get("conversion", {}).get("settings", {})
    return set(wanted_windows(split, settings.get("episodes", "language"))[0])


def _compare(store: Store, split: Split, rows: slice, first: int) -> list[str]:
    """Differences of an episode's rows from the frames from ``first`` on."""
    stored = {name: _read(store, name, rows) for name in ("action", "state")}
    for offset in range(rows.stop - rows.start):
        path = split.frame_path(first + offset)
        try:
            frame = read_frame(path, ("rel_actions", "robot_obs"), split.config)
        except BadFrameError as error:
            return [str(error)]
        for name, key in (("action", "rel_actions"), ("state", "robot_obs")):
            if not np.array_equal(stored[name][offset], frame[key].astype(np.float32)):
                return [f"{name} of row {rows.start + offset} differs from {path}"]
    return _compare_images(store, split, rows.start, first)


def _compare_images(store: Store, split: Split, row: int, number: int) -> list[str]:
    """Whether a row's cloud and images are those of a frame."""
    path = split.frame_path(number)
    try:
        expected = convert_frame(store.pipeline, split.config, path, store.array_names)
    except BadFrameError as error:
        return [str(error)]
    return [
        f"{name} of row {row} differs from what {path} gives"
        for name in store.array_names
        if name in ("point_cloud", "img", "depth")
        and not np.array_equal(_read(store, name, slice(row, row + 1))[0], expected[name])
    ]


def _read(store: Store, name: str, rows: slice) -> NDArray[Any]:
    """Rows of an array; raises `UserError` if they cannot be decoded."""
    try:
        return np.asarray(store.array(name)[rows].read().result())
    except ValueError as error:
        raise UserError(
            f"{store.path}: {name} from frame {rows.start} on cannot be decoded ({error}); "
            "convert the dataset again"
        ) from error
