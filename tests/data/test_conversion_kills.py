"""A conversion is the same however often it dies, and wherever."""

import functools
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langsteer.data import conversion
from langsteer.data.conversion import convert
from langsteer.data.store import open_store, partial_path
from langsteer.resumable import Share


def _kill_at_random_moments(
    command: Callable[..., list[str]], folder: Path, kills: int, workers: int, seed: int
) -> int:
    """Convert to stores in ``folder``, killing each run at a random moment; returns the stores."""
    moments = random.Random(seed)
    stores = 0
    while kills > 0:
        path = folder / f"{stores}.zarr"
        arguments = command(path, "--overwrite", "--num_workers", str(workers))
        finished = False
        while not finished:
            process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
            if kills > 0:
                _wait_for_work(process, path)
                time.sleep(moments.uniform(0, 0.15 if workers == 1 else 0.8))
                kills -= process.poll() is None
                process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            finished = process.returncode == 0
            assert finished or process.returncode == -signal.SIGKILL, errors
            open_store(path) if finished else None
        stores += 1
    return stores


def _wait_for_work(process: subprocess.Popen[Any], path: Path) -> None:
    """Until the process has begun to work: before, it only imports."""
    before = _changes(path)
    while process.poll() is None and _changes(path) == before:
        time.sleep(0.001)


def _changes(path: Path) -> tuple[list[str], bool, bool]:
    """What tells that something was written."""
    try:
        done = sorted(entry.name for entry in (partial_path(path) / "done").iterdir())
    except OSError:
        done = []
    return done, partial_path(path).exists(), path.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_run_that_is_killed_at_random_moments_and_continued_equals_one_that_is_not(
    small_calvin, conversion_command, small_store, contents, tmp_path, workers
):
    command = functools.partial(conversion_command, small_calvin)
    stores = _kill_at_random_moments(command, tmp_path, 4, workers, seed=workers)
    for index in range(stores):
        np.testing.assert_equal(contents(tmp_path / f"{index}.zarr"), contents(small_store.path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        f"{i}.zarr" for i in range(stores)
    ]


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    small_calvin, small_settings, tmp_path, monkeypatch, capsys
):
    def interrupted(self, shard):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion._ShardWriter, "do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(small_calvin, tmp_path / "store.zarr", small_settings(), num_workers=1)
    assert "stopped; 0 of " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_change_nothing(
    small_calvin, conversion_command, small_store, contents, tmp_path, workers
):
    command = functools.partial(conversion_command, small_calvin)
    stores = _kill_at_random_moments(command, tmp_path, 20, workers, seed=10 + workers)
    for index in range(stores):
        np.testing.assert_equal(contents(tmp_path / f"{index}.zarr"), contents(small_store.path))


class Killed(BaseException):
    """Stands in for a SIGKILL at a chosen place."""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "place",
    [
        "langsteer.data.publish.create_arrays",
        "langsteer.data.publish.write_metadata",
        "langsteer.data.publish._swap",
        "langsteer.data.publish.discard",
        "langsteer.data.publish.shutil.rmtree",
        "langsteer.data.publish.os.link",
        "langsteer.data.conversion.publish",
        "langsteer.data.conversion.start",
        "langsteer.data.shard_writer.replacing",
        "langsteer.data.shard_writer._write",
    ],
)
def test_death_at_each_step_of_the_work_loses_nothing(
    small_calvin, small_settings, small_store, contents, tmp_path, monkeypatch, place, overwrite
):
    path = tmp_path / "a.zarr"
    if overwrite:
        convert(small_calvin, path, small_settings(max_episodes=1), num_workers=1)

    def die(*_arguments, **_options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, die)
        with pytest.raises(Killed):
            convert(small_calvin, path, small_settings(), overwrite=overwrite, num_workers=1)
    convert(small_calvin, path, small_settings(), overwrite=overwrite, num_workers=1)
    np.testing.assert_equal(contents(path), contents(small_store.path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_continued_run_computes_only_what_is_missing(small_calvin, small_settings, tmp_path):
    path = tmp_path / "a.zarr"
    first = convert(small_calvin, path, small_settings(), num_workers=1, share=Share(0, 2))
    rest = convert(small_calvin, path, small_settings(), num_workers=1)
    assert rest.store is not None
    assert rest.store.n_frames == first.frames + rest.frames
    assert first.frames > 0
    assert rest.frames > 0


def test_workers_end_with_a_parent_that_is_killed(small_calvin, conversion_command, tmp_path):
    command = conversion_command(small_calvin, tmp_path / "a.zarr", "--num_workers", "2")
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _wait_for_work(process, tmp_path / "a.zarr")
    children = [int(pid) for pid in _children(process.pid)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(_is_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
