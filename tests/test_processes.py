"""Worker processes end with their parent, and at once when a person interrupts it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from langsteer.processes import worker_pool

SECONDS_OF_WORK = 600


def nothing() -> None:
    """Worker processes need no preparation here."""


def work(folder: str) -> None:
    """Takes longer than anybody waits, and says so by a file of the process's number."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(SECONDS_OF_WORK)


def main(folder: str) -> None:
    with worker_pool(2, nothing, ()) as pool:
        for future in [pool.submit(work, folder) for _ in range(8)]:
            future.result()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_interrupt_does_not_wait_for_the_work_under_way(tmp_path):
    process = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert all(is_gone(int(path.name)) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2  # no further work was begun


if __name__ == "__main__":
    main(sys.argv[1])
