"""openpi's own client and server, each at the other end of ours.

    OPENPI=CHECKOUT OPENPI_PYTHON=PYTHON pytest tests/serving/test_openpi.py

PYTHON has ``packages/openpi-client`` of the checkout.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="needs the extra [serve]")
pytest.importorskip("pybullet")

from langsteer import load_agent
from langsteer.calvin.instructions import phrasings
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.serving.frames import read_frame
from langsteer.serving.messages import DEPTHS, IMAGES, STATE

CHECKOUT, PYTHON = (os.environ.get(name) for name in ("OPENPI", "OPENPI_PYTHON"))
ROOT = Path(__file__).resolve().parents[2]
TASK = "open_drawer"

pytestmark = pytest.mark.skipif(
    CHECKOUT is None or PYTHON is None, reason="OPENPI and OPENPI_PYTHON name no openpi"
)


@pytest.fixture
def start(tmp_path):
    """Start a process; its standard output is piped."""
    processes = []

    def begin(*command):
        paths = {"PYTHONPATH": f"{CHECKOUT}/src"} if command[0] == PYTHON else {}
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_their_client_gets_the_shipped_policys_actions(start, tmp_path):
    server = start(
        sys.executable, ROOT / "scripts" / "serve_policy.py",
        "policy.ckpt_path=shipped", "port=0", "device=cpu",
    )  # fmt: skip
    url = server.stdout.readline().split(" on ")[1].split(";")[0]
    client = start(PYTHON, Path(__file__).with_name("their_client.py"), url)
    assert "pipeline" in json.loads(client.stdout.readline())
    agent, sentence = load_agent("shipped", device="cpu"), phrasings(TASK)[0]
    agent.reset(0)
    agent.instruct(sentence)
    env = CalvinEnv()
    try:
        env.reset(seed=0)
        before = env.robot_obs[:3].copy()
        for turn in range(4):
            observation = seen(env)
            asked = tmp_path / f"{turn}.npz"
            arrays = {key.replace("/", ":"): value for key, value in observation.items()}
            np.savez(asked, prompt=np.array(sentence), **arrays)
            client.stdin.write(f"{asked}\n")
            client.stdin.flush()
            assert json.loads(client.stdout.readline()) == ["actions"]
            actions = np.load(asked.with_suffix(".npy"))
            np.testing.assert_array_equal(actions, agent.act(read_frame(observation, agent)))
            for action in actions:
                env.step(action)
        assert np.linalg.norm(env.robot_obs[:3] - before) > 0.01
    finally:
        env.close()


def seen(env):
    """What CALVIN's cameras and robot say, under openpi's keys."""
    frame = {STATE: env.robot_obs.astype(np.float32)}
    for name, key in IMAGES.items():
        frame[key], frame[DEPTHS[name]] = env.render_camera(name)
    return frame


def test_our_evaluation_plays_a_policy_on_their_server(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start(PYTHON, Path(__file__).with_name("their_server.py"), port, tmp_path / "kept.json")
    evaluation = start(
        sys.executable, ROOT / "scripts" / "evaluate_calvin.py",
        f"policy.url=ws://127.0.0.1:{port}", "output_dir=run", "num_chains=1", "max_steps=12",
        "policy.connect_seconds=60",
    )  # fmt: skip
    output, _ = evaluation.communicate(timeout=240)
    assert evaluation.returncode == 0, output
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["observation/image"] == [200, 200, 3]
    chain = json.loads((tmp_path / "run" / "chains" / "0000.json").read_text())
    assert chain["steps"] == 12
