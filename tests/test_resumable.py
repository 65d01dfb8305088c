"""Numbered pieces: each done once, whatever is killed, and however many jobs share them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langsteer.claims import at_work
from langsteer.errors import UserError
from langsteer.resumable import WHOLE, Pieces, Share, run_pieces, settle_settings

SECONDS = 0.1
REMEDY = "choose another folder"


class Slow:
    """Takes a while for each piece, or until its `hold` file goes, and notes who did it."""

    def __init__(self, folder: Path, fails_at: int | None = None) -> None:
        self._folder, self._fails_at = folder, fails_at
        if fails_at == -1:
            raise UserError("cannot begin")

    def do(self, number: int) -> dict[str, int]:
        if number == self._fails_at:
            raise UserError(f"cannot do {number}")
        with (self._folder / "done.log").open("a") as log:
            log.write(f"{number} {os.getpid()}\n")
        time.sleep(SECONDS)
        while (self._folder / f"hold{number}").exists():
            time.sleep(SECONDS)
        return {"square": number**2}

    def close(self) -> None:
        (self._folder / "closed").touch()


def run(
    folder: Path, count: int, workers: int = 1, share: Share = WHOLE, **slow
) -> dict[int, dict[str, int]]:
    pieces = Pieces(folder / "pieces", "piece", "testing")
    return run_pieces(pieces, range(count), partial(Slow, folder, **slow), workers, share)


def log(folder: Path) -> list[int]:
    return [int(line.split()[0]) for line in (folder / "done.log").read_text().splitlines()]


def start(folder: Path, count: int, workers: int = 1) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, str(folder), str(count), str(workers)])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_pieces(folder: Path, count: int) -> None:
    wait_for(lambda: len(list((folder / "pieces").glob("*.json"))) >= count)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_those_of_all_pieces_in_order_and_none_is_done_again(tmp_path, workers):
    expected = {number: {"square": number**2} for number in range(5)}
    for _ in range(2):
        found = run(tmp_path, 5, workers)
        assert found == expected
        assert list(found) == list(range(5))
    assert sorted(log(tmp_path)) == list(range(5))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_what_is_kept_and_how_to_go_on(tmp_path, workers, number):
    command = [sys.executable, __file__, str(tmp_path), "40", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_pieces(tmp_path, 1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert re.search(
        rf"{number.name}: stopped; \d+ of 40 pieces are in .*pieces; the same command goes on", said
    )


def test_a_run_that_goes_on_or_has_nothing_to_do_is_told_from_a_fresh_one(tmp_path, capsys):
    run(tmp_path, 2)
    assert "made before" not in capsys.readouterr().err
    run(tmp_path, 3)
    assert "going on, 2 of 3 pieces were made before" in capsys.readouterr().err
    run(tmp_path, 3)
    assert "all 3 pieces were made before, and are kept" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_job_goes_on_with_the_pieces_it_had_not_finished(tmp_path, workers):
    job = start(tmp_path, 8, workers)
    wait_for_pieces(tmp_path, 3)
    job.send_signal(signal.SIGKILL)
    job.wait()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "pieces").glob("*.json")}
    assert len(run(tmp_path, 8)) == 8
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_two_jobs_at_once_do_each_piece_once_and_both_have_all_results(tmp_path):
    job = start(tmp_path, 60)
    wait_for_pieces(tmp_path, 1)
    assert len(run(tmp_path, 60, workers=2)) == 60
    assert job.wait() == 0
    assert sorted(log(tmp_path)) == list(range(60))
    assert len({line.split()[1] for line in (tmp_path / "done.log").read_text().splitlines()}) > 1


def test_what_a_killed_job_had_claimed_is_taken_over_by_the_other(tmp_path):
    hold = tmp_path / "hold1"
    hold.touch()
    job = start(tmp_path, 2)
    wait_for(lambda: (tmp_path / "done.log").exists() and log(tmp_path) == [0, 1])
    other = start(tmp_path, 2)
    time.sleep(1.5)
    assert other.poll() is None  # it waits for the claimed piece
    job.send_signal(signal.SIGKILL)
    job.wait()
    hold.unlink()
    assert other.wait(timeout=60) == 0
    assert len(list((tmp_path / "pieces").glob("*.json"))) == 2


@given(count=st.integers(1, 9), pieces=st.integers(0, 40))
def test_shares_part_the_pieces_among_them(count, pieces):
    shares = [Share.parse(f"{index}/{count}").of(range(pieces)) for index in range(count)]
    assert sorted(number for share in shares for number in share) == list(range(pieces))


def test_a_share_leaves_the_rest_to_others_and_the_last_has_all(tmp_path):
    assert set(run(tmp_path, 5, share=Share(1, 2))) == {1, 3}
    assert set(run(tmp_path, 5, share=Share(0, 2))) == set(range(5))


@pytest.mark.parametrize(
    "text", ["5/4", "4/4", "0/0", "1", "-1/4", "a/b", "1/2/3", "", "²/3", None]
)
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UserError, match="expected I/N with I from 0 to N - 1"):
        Share.parse(text)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_piece_or_of_a_worker_is_said_as_it_is(tmp_path, workers):
    with pytest.raises(UserError, match="cannot do 1"):
        run(tmp_path, 3, workers, fails_at=1)
    with pytest.raises(UserError, match="cannot begin"):
        run(tmp_path, 4, workers, fails_at=-1)


def test_a_damaged_result_is_named(tmp_path):
    run(tmp_path, 2)
    path = tmp_path / "pieces" / "0001.json"
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"0001\.json: damaged .* remove it"):
            run(tmp_path, 2)


def test_other_settings_are_refused_with_just_what_differs(tmp_path):
    path = tmp_path / "run" / "settings.json"
    settings = {"seed": 1, "env": {"scene": "D", "renderer": "depth"}, "tasks": ("a", "b")}
    settle_settings(path, settings, REMEDY)
    settle_settings(path, settings, REMEDY)
    with pytest.raises(UserError) as error:
        settle_settings(path, {**settings, "env": {"scene": "A", "renderer": "depth"}}, REMEDY)
    assert "  env.scene: D there, A now\n" in str(error.value)
    assert "renderer" not in str(error.value)
    assert str(error.value).endswith(REMEDY)


def test_of_jobs_that_begin_at_once_with_different_settings_one_alone_goes_on(tmp_path):
    jobs = [
        subprocess.Popen([sys.executable, __file__, str(tmp_path), "settings", str(seed)])
        for seed in range(4)
    ]
    assert sorted(job.wait() for job in jobs) == [0, 1, 1, 1]
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["seed"] in range(4)


def test_only_a_job_that_is_alone_tidies_up(tmp_path):
    hold = tmp_path / "hold3"
    hold.touch()
    job = start(tmp_path, 4)
    wait_for_pieces(tmp_path, 1)
    tidied = []
    with at_work(tmp_path / "pieces", lambda: tidied.append(1)) as alone:
        assert not alone
    hold.unlink()
    job.wait()
    with at_work(tmp_path / "pieces", lambda: tidied.append(2)) as alone:
        assert alone
    assert tidied == [2]


if __name__ == "__main__":
    folder, count, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if count == "settings":
        try:
            settle_settings(folder / "settings.json", {"seed": number}, REMEDY)
        except UserError:
            sys.exit(1)
    else:
        run(folder, int(count), number)
