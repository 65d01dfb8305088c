"""``run_experiment.py`` and ``evaluate_calvin.py``: whole, resumable, clear about bad input."""

import base64
import json
import re
import signal
import time

import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.benchmark import chains
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.evaluation.long_horizon import read_instructions

SHORT = ["max_steps=16"]


def experiment(checkpoint, *arguments):
    return [
        "run_experiment.py", f"policy.ckpt_path={checkpoint}", "output_dir=run", *SHORT, *arguments,
    ]  # fmt: skip


def benchmark(checkpoint, *arguments):
    return [
        "evaluate_calvin.py", f"policy.ckpt_path={checkpoint}", "output_dir=run", *SHORT,
        *arguments,
    ]  # fmt: skip


def test_experiment_leaves_results_episodes_videos_and_report(run_command, checkpoint, tmp_path):
    output = run_command(*experiment(checkpoint, "num_episodes=2", "videos=1", "control=true"))
    assert "success rate: 0.0 % (0 of 2; 95 % interval 0.0-65.8 %)" in output
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    made_by = results["provenance"]
    assert made_by["environment"]["scene"] == "builtin"
    assert made_by["environment"]["renderer"] == "depth"
    assert made_by["checkpoint"]["path"] == str(checkpoint)
    assert made_by["seed"] == 1000
    assert made_by["precision"] == "fp32"
    assert len((folder / "episodes.csv").read_text().splitlines()) == 3
    assert (folder / "episodes" / "0000.mp4").stat().st_size > 1000
    assert not (folder / "episodes" / "0001.mp4").exists()
    page = (folder / "report.html").read_text()
    assert "open_drawer; the policy is told nothing" in page
    written = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert written is not None
    data = json.loads(written[1])
    facts = dict(data["facts"])
    assert facts["checkpoint"] == str(checkpoint)
    assert "run_experiment.py" in facts["command"]
    assert "num_episodes=2" in facts["command"]
    low, high = data["bars"][0]["rows"][0]["interval"]
    assert low == 0 < high < 1
    assert [row["label"] for row in data["bars"][0]["rows"]] == [
        "open_drawer",
        "open_drawer, untrained network",
    ]
    assert "untrained network at the same starts: 0.0 % (0 of 2" in output
    filmed, unfilmed = data["panels"]
    (film,) = filmed["films"]
    played = json.loads((folder / "episodes" / "0000.json").read_text())
    assert len(film["track"]) == played["steps"] + 1
    assert base64.b64decode(filmed["thumbnail"]).startswith(b"\xff\xd8")
    assert unfilmed["films"] == []
    assert "<script src" not in page  # needs no network


def test_number_of_workers_changes_no_result_where_each_has_one_thread(
    run_command, checkpoint, tmp_path
):
    for workers in (1, 2):
        run_command(
            "run_experiment.py", f"policy.ckpt_path={checkpoint}", f"output_dir=w{workers}",
            *SHORT, "num_episodes=3", "videos=0", f"num_workers={workers}",
        )  # fmt: skip
    for number in range(3):
        one, two = (
            json.loads((tmp_path / f"w{workers}" / "episodes" / f"{number:04d}.json").read_text())
            for workers in (1, 2)
        )
        del one["prediction_ms"], two["prediction_ms"]
        assert one == two


@pytest.mark.parametrize(
    ("command", "pieces"), [(experiment, "num_episodes=6"), (benchmark, "num_chains=6")]
)
def test_killed_run_keeps_finished_pieces_and_goes_on(
    start_command, run_command, checkpoint, tmp_path, command, pieces
):
    arguments = command(checkpoint, pieces, "videos=0")
    process = start_command(*arguments)
    folder = tmp_path / "run" / ("episodes" if command is experiment else "chains")
    while len(list(folder.glob("*.json"))) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    run_command(*arguments)
    assert len(list(folder.glob("*.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_benchmark_plays_the_official_chains_and_stops_at_the_first_failure(
    run_command, checkpoint, tmp_path
):
    output = run_command(*benchmark(checkpoint, "num_chains=2", "videos=1"))
    assert "average length: 0.000 of 5" in output
    assert "report:  run/report.html" in output
    for number, chain in enumerate(chains(2)):
        played = json.loads((tmp_path / "run" / "chains" / f"{number:04d}.json").read_text())
        assert tuple(played["tasks"]) == chain.tasks
        assert [subtask["task"] for subtask in played["subtasks"]] == [chain.tasks[0]]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["in_a_row"]["1"]["attempts"] == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"chain 0, task 1: {chains(1)[0].tasks[0]}; the policy is told nothing" in page


def test_shards_of_the_benchmark_merge_into_one_result(run_command, checkpoint, tmp_path):
    first = run_command(*benchmark(checkpoint, "num_chains=3", "shard=0/2"))
    assert "2 of 3 chains are done" in first
    assert not (tmp_path / "run" / "results.json").exists()
    run_command(*benchmark(checkpoint, "num_chains=3", "shard=1/2"))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["chains"] == 3


def test_a_range_of_chains_is_the_same_chains_as_in_the_whole(run_command, checkpoint, tmp_path):
    run_command(*benchmark(checkpoint, "num_chains=3"))
    run_command(*benchmark(checkpoint, "chains=1-2", "output_dir=range", "videos=1"))
    chains = tmp_path / "range" / "chains"
    assert sorted(path.name for path in chains.iterdir()) == [
        "0001.json", "0001_1.mp4", "0002.json",
    ]  # fmt: skip
    for number in (1, 2):
        one, other = (
            json.loads((tmp_path / run / "chains" / f"{number:04d}.json").read_text())
            for run in ("run", "range")
        )
        for result in (one, other):
            del result["subtasks"][0]["prediction_ms"]
        assert one == other
    output = run_command(*benchmark(checkpoint, "chains=1-1", "output_dir=range"), status=2)
    assert "chains: 1-2 there, 1-1 now" in output


def test_official_sentences_are_used_when_given(run_command, checkpoint, tmp_path, calvin_assets):
    path = calvin_assets / "benchmark" / "new_playtable_validation.yaml"
    run_command(*benchmark(checkpoint, "num_chains=1", f"annotations={path}"))
    (subtask,) = json.loads((tmp_path / "run" / "chains" / "0000.json").read_text())["subtasks"]
    assert subtask["instruction"] in path.read_text()


def test_held_out_sentences_are_none_of_those_to_train_on():
    sentences = read_instructions("held_out")
    assert sentences.keys() == set(TASKS)
    assert not [task for task, told in sentences.items() if told in phrasings(task)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy.ckpt_path=null"], "set policy.ckpt_path"),
        (["policy.ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["env.task=open_the_pod_bay_doors"], "no task 'open_the_pod_bay_doors'"),
        (["env.scene=E"], "no scene 'E'"),
        (["env.renderer=crayon"], "no renderer 'crayon'"),
        (["num_episodes=0"], "num_episodes=0"),
        (["num_workers=0"], "num_workers=0"),
        (["env.task=[]"], "env.task=[]"),
        (["env.instruction=5"], "env.instruction=5"),
        (["seed=-1"], "seed=-1"),
        (["videos=x"], "videos=x"),
        (["policy.use_ema=maybe"], "policy.use_ema=maybe: expected true or false"),
        (["env.renderer=crayon", "num_workers=2"], "no renderer 'crayon'"),
        (["num_episode=1"], "did you mean num_episodes?"),
        (["device=tpu"], "device=tpu"),
        (["precision=fp8"], "precision=fp8: expected one of auto, fp32, tf32, bf16"),
    ],
)
def test_bad_input_to_an_experiment_is_a_clear_error(run_command, checkpoint, arguments, message):
    assert message in run_command(*experiment(checkpoint, *arguments), status=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["num_chains=1001"], "num_chains=1001"),
        (["shard=5/4"], "shard=5/4"),
        (["chains=990-1000"], "chains=990-1000: expected FIRST-LAST within 0-999"),
        (["chains=7-3"], "chains=7-3"),
        (["chains=0-1", "num_chains=5"], "name one of them"),
        (["annotations=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_to_the_benchmark_is_a_clear_error(run_command, checkpoint, arguments, message):
    assert message in run_command(*benchmark(checkpoint, *arguments), status=2)


def test_truncated_and_foreign_checkpoints_are_clear_errors(run_command, checkpoint, tmp_path):
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:5000])
    (tmp_path / "foreign.ckpt").write_bytes(b"not a checkpoint")
    for name in ("cut.ckpt", "foreign.ckpt"):
        output = run_command(*experiment(name, "num_episodes=1"), status=2)
        assert f"{name}: damaged, or not a checkpoint" in output
        assert "torch.save" not in output  # PyTorch's advice is for whoever wrote the file


def test_folder_with_results_of_other_settings_is_left_alone(run_command, checkpoint):
    run_command(*experiment(checkpoint, "num_episodes=1", "videos=0"))
    output = run_command(*experiment(checkpoint, "num_episodes=1", "videos=0", "seed=2"), status=2)
    assert "holds results of other settings" in output
    assert "seed: 1000 there, 2 now" in output


def test_checkpoint_of_another_static_camera_is_refused(run_command, checkpoint_factory, tmp_path):
    other = ObservationPipeline(n_points=64).to_dict()
    other["static"]["fov"] = 20.0
    pipeline = ObservationPipeline.from_dict(other)
    path = checkpoint_factory(tmp_path / "other.ckpt", pipeline)
    output = run_command(*experiment(path, "num_episodes=1"), status=2)
    assert "static.fov: 10.0 against 20.0" in output
