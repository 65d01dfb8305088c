"""Worker processes end with their parent, and at once when a person interrupts it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langsteer.processes import worker_pool

SECONDS_OF_WORK = 600


def nothing() -> None:
    """Worker processes need no preparation here."""


def work(folder: str) -> None:
    """Takes longer than anybody waits, and says so by a file of the process's number."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(SECONDS_OF_WORK)


def main(folder: str, job) -> None:
    with worker_pool(2, nothing, ()) as pool:
        for future in [pool.submit(job, folder) for _ in range(8)]:
            future.result()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"  # ended, and its new parent has not looked yet


def test_an_interrupt_does_not_wait_for_the_work_under_way(tmp_path):
    process = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert all(is_gone(int(path.name)) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2  # no further work was begun


def hold_pythons_lock(folder: str) -> None:
    """Work in C code that lets no other thread of Python run."""
    (Path(folder) / str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(SECONDS_OF_WORK)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_workers_end_with_a_killed_parent_whatever_they_do(tmp_path):
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path), "hold_pythons_lock"])
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 5
    while not all(map(is_gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [pid for pid in workers if not is_gone(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


if __name__ == "__main__":
    main(sys.argv[1], globals()[sys.argv[2]] if len(sys.argv) > 2 else work)
