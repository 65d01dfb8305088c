"""Fixtures of the conversion's tests."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from langsteer.data.conversion import convert
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.store import Store, open_store

SMALL = ConversionSettings(n_points=64, static_crop=32, frames_per_shard=8)
SMALL_OPTIONS = ("--num_points", "64", "--crop", "32", "--frames_per_file", "8")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "convert_calvin_to_zarr.py"

# Sentences with tasks; the windows overlap within the first recording, and one is a repetition.
WINDOWS = [
    (10, 30, "open_drawer", "pull the drawer"),
    (25, 45, "close_drawer", "push the drawer"),
    (10, 30, "open_drawer", "pull the drawer"),
    (50, 60, "open_drawer", "open it"),
    (70, 100, "turn_on_led", "press the button"),
]


@pytest.fixture(scope="session")
def small_settings() -> Callable[..., ConversionSettings]:
    """Settings that fit the images of `make_calvin`; ``small_settings(tasks=...)`` changes them."""
    return lambda **changes: dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="session")
def small_calvin(
    tmp_path_factory: pytest.TempPathFactory, make_calvin: Callable[[Path, Mapping[str, Any]], Path]
) -> Path:
    """A small CALVIN folder with 80 annotated frames in two splits; not to be changed."""
    return make_calvin(
        tmp_path_factory.mktemp("small") / "calvin",
        {
            "training": ([(10, 61), (62, 110)], WINDOWS),
            "validation": ([(200, 220)], [(203, 213, "open_drawer", "pull it out")]),
        },
    )


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, Any]]:
    """All that a store holds, by name: ``contents(path)``."""

    def read(path: Path) -> dict[str, Any]:
        store = open_store(path)
        arrays = {name: store.read(name) for name in store.array_names}
        return arrays | {"ends": store.episode_ends, "episodes": store.episodes.to_dict()}

    return read


@pytest.fixture(scope="session")
def conversion_command() -> Callable[..., list[str]]:
    """The command with `SMALL`'s settings: ``conversion_command(root, path, "--overwrite")``."""

    def command(root: Path, path: Path, *options: str) -> list[str]:
        places = ["--root_dir", str(root), "--save_path", str(path)]
        return [sys.executable, str(SCRIPT), *places, *SMALL_OPTIONS, *options]

    return command


@pytest.fixture(scope="session")
def converted() -> Callable[..., Store]:
    """`convert` by one job, and the store: ``converted(roots, path, settings, num_workers=1)``."""

    def run(
        roots: Path | list[Path], path: Path, settings: ConversionSettings, num_workers: int = 1
    ) -> Store:
        store = convert(roots, path, settings, num_workers=num_workers).store
        assert store is not None, "shards are missing"
        return store

    return run


@pytest.fixture(scope="session")
def small_store(
    converted: Callable[..., Store], small_calvin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """The store of `small_calvin`, converted without any disturbance; not to be changed."""
    return converted(small_calvin, tmp_path_factory.mktemp("store") / "small.zarr", SMALL)


@pytest.fixture(scope="session")
def sample_store(
    converted: Callable[..., Store], shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """The store of the sample of the real simulator; not to be changed."""
    path = tmp_path_factory.mktemp("sample") / "sample.zarr"
    return converted(shared / "calvin_sample", path, ConversionSettings())
