"""Results of an earlier run are believed only where they can be those of this run's pieces."""

import json
import os

import pytest

pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.errors import UserError
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.long_horizon import BenchmarkSettings, evaluate

DAMAGES = [
    ({"task": "close_drawer"}, "the result of episode 0, 'close_drawer'"),
    ({"instruction": "x"}, "the result of episode 0"),
    ({"episode": 1}, "the result of episode 1"),
    ({"environment": None}, "environment=None: expected names and values"),
    ({"environment": {"scene": "D"}}, "environment.renderer is missing"),
    ({"success": True}, "success=True with tasks_seen"),
    ({"success": "yes"}, "success='yes': expected true or false"),
    ({"steps": -1}, "steps=-1: expected a whole number from 0 on"),
    ({"prediction_ms": float("nan")}, "prediction_ms=nan: expected a number"),
    ({"tasks_seen": {}}, "tasks_seen="),
]


@pytest.fixture(scope="module")
def settings(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return [
        f"policy.ckpt_path={checkpoint}", f"output_dir={folder}", "max_steps=8", "videos=0",
        "device=cpu",
    ]  # fmt: skip


def test_a_damaged_episode_is_named_and_made_again_when_it_is_removed(settings):
    run = ExperimentSettings.from_dict(compose("experiment", [*settings, "num_episodes=1"]))
    summary = run_experiment(run)
    path = summary.folder / "episodes" / "0000.json"
    whole = path.read_text()
    for change, message in DAMAGES:
        path.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(UserError) as found:
            run_experiment(run)
        assert message in str(found.value)
        assert "0000.json: damaged" in str(found.value)
    for text in ("[" * 100_000, "5", whole[:-9], "\x00"):
        path.write_text(text)
        with pytest.raises(UserError, match="damaged"):
            run_experiment(run)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="a pipe or a device"):
        run_experiment(run)
    path.unlink()
    assert run_experiment(run).episodes[0]["task"] == "open_drawer"


CHAIN_DAMAGES = [
    ({"chain": 3}, "the result of chain 3"),
    ({"completed": 5}, "completed=5 with successes"),
    ({"subtasks": []}, "subtasks []"),
    ({"subtasks": [1]}, "subtasks[0]=1"),
    ({"tasks": ["open_drawer"]}, "the result of chain 0, ['open_drawer']"),
]


def test_a_damaged_chain_is_named(settings, tmp_path):
    arguments = [*settings, f"output_dir={tmp_path}", "num_chains=1"]
    run = BenchmarkSettings.from_dict(compose("evaluate", arguments))
    evaluate(run)
    path = tmp_path / "chains" / "0000.json"
    whole = json.loads(path.read_text())
    for change, message in CHAIN_DAMAGES:
        path.write_text(json.dumps(whole | change))
        with pytest.raises(UserError) as found:
            evaluate(run)
        assert message in str(found.value)
