"""Evaluations of policies in other processes: numbers as of our own, faults that lose nothing."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="needs the extra [serve]")
pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.long_horizon import BenchmarkSettings, evaluate

STATE_ALONE = {"observation": [], "model": "somebody's"}


@pytest.fixture
def start_server():
    """Start ``foreign_server.py``; it returns the process, the port and what it printed so far."""
    processes = []

    def start(fault="none", good_answers=0, metadata=STATE_ALONE, port=0):
        script = Path(__file__).with_name("foreign_server.py")
        arguments = [str(port), fault, str(good_answers), json.dumps(metadata)]
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.wait()


def settings(port, folder, *more):
    return BenchmarkSettings.from_dict(
        compose(
            "evaluate",
            [
                f"policy.url=ws://127.0.0.1:{port}", f"output_dir={folder}", "max_steps=8",
                "num_chains=3", "policy.connect_seconds=0.5", "policy.answer_seconds=2", *more,
            ],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("nan", r"actions\[0\].*not all finite"),
        ("shape", r"\(8, 6\), expected \(K, 7\)"),
        ("die", "closed the connection"),
        ("slow", "no answer within 2 s"),
        ("fail", "the server failed: ZeroDivisionError: by zero"),
        ("garbage", "no msgpack"),
    ],
)
def test_fault_in_the_middle_keeps_finished_chains_and_the_same_run_goes_on(
    start_server, tmp_path, fault, complaint
):
    process, port = start_server(fault, good_answers=1)
    with pytest.raises(UserError, match=complaint) as caught:
        evaluate(settings(port, tmp_path))
    assert f"127.0.0.1:{port}" in str(caught.value) and "\n" not in str(caught.value)
    process.kill()
    process.wait()
    kept = tmp_path / "chains" / "0000.json"
    written = kept.stat().st_mtime_ns
    assert not (tmp_path / "chains" / "0001.json").exists()
    start_server(port=port)
    summary = evaluate(settings(port, tmp_path))
    assert summary is not None
    assert kept.stat().st_mtime_ns == written
    assert len(summary.results) == 3
    assert json.loads((tmp_path / "results.json").read_text())["chains"] == 3


def test_server_that_is_absent_or_speaks_no_websocket_is_said_and_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"no server answered within 0.5 s.*start it"):
        evaluate(settings(port, tmp_path))
    with pytest.raises(UserError, match="expected ws://HOST:PORT"):
        evaluate(settings(port, tmp_path, "policy.url=http://127.0.0.1:1"))
    assert list(tmp_path.iterdir()) == []


def test_command_ends_with_one_line_and_other_servers_results_are_not_mixed(
    start_server, run_command, tmp_path
):
    process, port = start_server("die", good_answers=1)
    arguments = [
        "evaluate_calvin.py", f"policy.url=ws://127.0.0.1:{port}", "output_dir=run",
        "max_steps=8", "num_chains=4", "num_workers=2", "policy.connect_seconds=0.5",
    ]  # fmt: skip
    output = run_command(*arguments, status=2)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in output
    process.wait()
    start_server(port=port, metadata={**STATE_ALONE, "model": "another"})
    with pytest.raises(UserError, match="holds results of other settings"):
        evaluate(settings(port, tmp_path / "run", "num_chains=4"))


def test_requests_carry_what_the_server_asks_for(start_server, tmp_path):
    offer = {"observation": ["rgb", "depth", "cloud"], "n_obs_steps": 2}
    process, port = start_server(metadata=offer)
    evaluate(settings(port, tmp_path, "num_chains=1", "max_steps=16"))
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    frame = {
        "observation/state": ["<f4", 15],
        "observation/image": ["|u1", 200, 200, 3],
        "observation/wrist_image": ["|u1", 84, 84, 3],
        "observation/depth": ["<f4", 200, 200],
        "observation/wrist_depth": ["<f4", 84, 84],
        "observation/point_cloud": ["<f4", 2048, 3],
    }
    assert {key: first[key] for key in frame} == frame
    assert first["history"] == [] and second["history"] == [frame]
    assert (first["reset"], second["reset"]) == (True, False)
    assert first["prompt"] and first["prompt"] == second["prompt"]


def test_keys_say_what_a_server_does_not(start_server, tmp_path):
    process, port = start_server(metadata={})
    keys = ["policy.observation=[depth]", "policy.actions=absolute", "policy.action_horizon=2"]
    summary = evaluate(settings(port, tmp_path, "num_chains=1", "max_steps=4", *keys))
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    assert "observation/depth" in first and "observation/image" not in first
    assert second["reset"] is False
    assert summary is not None
    assert summary.results[0]["steps"] == 4
    saved = json.loads((tmp_path / "settings.json").read_text())
    assert saved["policy"]["actions"] == "absolute"
    assert "answer_seconds" not in saved["policy"]


def test_policy_elsewhere_has_the_numbers_of_the_same_policy_here(
    start_command, run_command, checkpoint, tmp_path
):
    server = start_command("serve_policy.py", f"policy.ckpt_path={checkpoint}", "port=0")
    try:
        url = server.stdout.readline().split(" on ")[1].split(";")[0]
        short = ["max_steps=18", "num_chains=3"]
        run_command(
            "evaluate_calvin.py", f"policy.url={url}", "output_dir=there", "num_workers=2", *short
        )
        run_command(
            "evaluate_calvin.py", f"policy.ckpt_path={checkpoint}", "output_dir=here", *short
        )
        episodes = [
            run_experiment(
                ExperimentSettings.from_dict(
                    compose(
                        "experiment",
                        [*key, f"output_dir={tmp_path / name}", "num_episodes=1", "max_steps=18"],
                    )
                )
            )
            for name, key in (
                ("one", [f"policy.url={url}"]), ("two", [f"policy.ckpt_path={checkpoint}"]),
            )
        ]  # fmt: skip
    finally:
        server.kill()
        server.wait()
    for number in range(3):
        there, here = (
            json.loads((tmp_path / name / "chains" / f"{number:04d}.json").read_text())
            for name in ("there", "here")
        )
        for chain in (there, here):
            for subtask in chain["subtasks"]:
                del subtask["prediction_ms"]
        assert there == here
    assert [summary.rate.attempts for summary in episodes] == [1, 1]
    one, two = (np.load(tmp_path / name / "episodes" / "0000.npz") for name in ("one", "two"))
    for key in ("actions", "robot_obs", "scene_obs", "point_cloud"):
        assert np.array_equal(one[key], two[key]), key


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (["policy.ckpt_path=x.ckpt"], "name one of them"),
        (["steering=value_map"], "cannot be steered here"),
        (["policy.url=null", "policy.actions=absolute"], "null without policy.url"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, keys, complaint):
    with pytest.raises(UserError, match=complaint):
        settings(1, tmp_path, *keys)
