"""Environments in worker processes: the same results, clear deaths, no orphans."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.envs.vector import VectorEnv, WorkerError
from langsteer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def pair():
    with VectorEnv(2, scene="builtin", renderer="tiny") as envs:
        envs.reset(seeds=[3, 4])
        yield envs


def test_workers_do_what_one_environment_does(pair, make_env):
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2, 7))
    for both in actions:
        states = pair.step(both)
    for index, seed in enumerate((3, 4)):
        alone = make_env("builtin", renderer="tiny")
        alone.reset(seed=seed)
        for both in actions:
            alone.step(both[index])
        assert np.array_equal(states["robot_obs"][index], alone.robot_obs)
        assert np.array_equal(states["scene_obs"][index], alone.scene_obs)
        assert pair.call("info")[index] == alone.info()


def test_refused_action_names_its_environment_and_the_vector_lives_on(pair):
    with pytest.raises(UserError, match=r"environment 1.*finite"):
        pair.step([[0, 0, 0, 0, 0, 0, 1], [np.nan, 0, 0, 0, 0, 0, 1]])
    assert pair.step(np.zeros((2, 7)))["robot_obs"].shape == (2, 15)
    with pytest.raises(UserError, match="3 entries for 2"):
        pair.step(np.zeros((3, 7)))


def test_worker_that_dies_is_a_clear_error_and_leaves_no_orphan(pair):
    processes = [worker.pid for worker in pair._workers]
    os.kill(processes[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"environment 1 died \(killed by signal 9\)"):
        while True:
            pair.step(np.zeros((2, 7)))
    assert not any(is_running(pid) for pid in processes)
    pair.close()
    with pytest.raises(UserError, match="closed"):
        pair.call("info")


def test_error_in_a_worker_carries_its_traceback(pair):
    with pytest.raises(WorkerError, match="AttributeError"):
        pair.call("no_such_method")


def test_wrong_arguments_are_refused_before_anything_runs():
    with pytest.raises(UserError, match="no scene 'Z'"):
        VectorEnv(2, scene="Z")
    with pytest.raises(UserError, match="at least one"):
        VectorEnv(0)


def test_killed_parent_leaves_no_worker(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from langsteer.envs.vector import VectorEnv\n"
        "if __name__ == '__main__':\n"
        "    envs = VectorEnv(2, scene='builtin', renderer='tiny')\n"
        "    print(*[worker.pid for worker in envs._workers], flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(is_running(pid) for pid in workers)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)
