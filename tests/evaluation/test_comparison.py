"""The comparison of steerings: paired, counterfactual, complete, and refused where it cannot be."""

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

pytest.importorskip("pybullet")

from langsteer.calvin.task import COLOURS, TASKS
from langsteer.calvin.tasks import TABLE, TABLE_TOP
from langsteer.configuration import compose
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.attempts import Attempt, blank_of, sample_starts
from langsteer.evaluation.comparison import NAME, ComparisonSettings, compare, evaluate
from langsteer.evaluation.comparison_report import video_path, write_report
from langsteer.evaluation.table import SHARE, paired_gain, rows, table_cells
from langsteer.evaluation.video import SIDE, write_gif
from langsteer.policies.dp3 import DP3Config
from langsteer.policies.loading import load_policy
from langsteer.steering.config import SteeringConfig
from langsteer.steering.demonstrations import Demonstration, DemonstrationLibrary


@pytest.fixture(scope="module")
def checkpoint(checkpoint_factory, tmp_path_factory):
    """Of a policy that denoises in ten steps, eight of which may be guided."""
    config = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))
    path = tmp_path_factory.mktemp("checkpoint") / "latest.ckpt"
    return checkpoint_factory(path, ObservationPipeline(n_points=64), config)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    down = np.tile([0.0, 0.3, -0.3, 0.0, 0.0, 0.0, -1.0], (30, 1))
    start = np.array([0.0, -0.2, 0.55, 3.1, 0.0, 1.5])
    shown = [Demonstration.from_actions(task, start, down) for task in TASKS]
    path = tmp_path_factory.mktemp("demonstrations") / "library.npz"
    DemonstrationLibrary(shown, "test").save(path)
    return str(path)


@pytest.fixture(scope="module")
def results(checkpoint, demonstrations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    values = compose(NAME, ["starts=2", "max_steps=17"])
    del values["steering"], values["methods"]
    values |= {"checkpoint": str(checkpoint), "output_dir": str(folder)}
    values |= {"encoder": "lexical", "plugin": None, "controls": []}
    values["tasks"] = ["open_drawer", "close_drawer", "turn_on_led", "turn_off_led"]
    config = ComparisonSettings.from_dict(values)
    reference = SteeringConfig(
        "reference", reference=1.0, strength=1.0, demonstrations=demonstrations
    )
    methods = {
        "none": SteeringConfig(),
        "zero": replace(reference, strength=0.0),
        "reference": reference,
        "best_of_n": replace(reference, strength=0.0, samples=4),
    }
    return attempts_of(config, methods), folder, config, methods


def attempts_of(config: ComparisonSettings, methods: Mapping[str, SteeringConfig]) -> list[Attempt]:
    """All attempts of a comparison that no other job shares."""
    found = evaluate(config, methods)
    assert found is not None
    return found


def by_pair(attempts: list[Attempt]) -> dict[tuple[int, str], dict[str, Attempt]]:
    """The attempts by start and task, and then by method."""
    found: dict[tuple[int, str], dict[str, Attempt]] = {}
    for one in attempts:
        found.setdefault((one.start, one.task), {})[one.method] = one
    return found


def test_every_method_tries_every_feasible_task_of_every_start(results):
    attempts, _, _, methods = results
    pairs = by_pair(attempts)
    assert all(set(tried) == set(methods) for tried in pairs.values())
    for start in (0, 1):
        asked = {task for number, task in pairs if number == start}
        # Of a task and its opposite exactly one can be done.
        assert len(asked & {"open_drawer", "close_drawer"}) == 1
        assert len(asked & {"turn_on_led", "turn_off_led"}) == 1


def test_attempts_of_a_pair_begin_alike_and_zero_strength_is_the_base(results):
    for tried in by_pair(results[0]).values():
        assert len({tuple(one.path[0]) for one in tried.values()}) == 1
        assert tried["zero"].path == tried["none"].path
        assert tried["reference"].path != tried["none"].path
        assert not tried["none"].samples
        assert len(tried["best_of_n"].samples) == 4


def test_calls_are_counted(results):
    for tried in by_pair(results[0]).values():
        assert [tried[name].gradient_calls for name in tried] == [0, 0, 8, 0]
        assert {one.denoiser_calls for one in tried.values()} == {10}


def test_results_table_and_report_are_written(results):
    attempts, folder, _, _ = results
    stored = json.loads((folder / "results.json").read_text())
    assert len(stored["attempts"]) == len(attempts)
    assert stored["settings"]["methods"]["reference"]["privileged"] is False
    assert stored["environment"]["scene"] == "builtin"
    assert len(stored["settings"]["checkpoint"]["sha256_of_end"]) == 16
    table = (folder / "table.md").read_text()
    assert "| best_of_n |" in table
    assert "| turn_o" in table
    page = (folder / "report.html").read_text()
    assert "Plotly.newPlot" in page
    assert "<script src" not in page
    assert "reference: not done" in page
    assert attempts[0].instruction in page


def test_controls_are_steered_alike_by_a_network_that_knows_nothing(results, tmp_path):
    _, _, config, methods = results
    few = {"starts": 1, "controls": ("reference", "none"), "output_dir": str(tmp_path)}
    tried = list(by_pair(attempts_of(replace(config, **few), methods)).values())
    for one in tried:
        assert one["reference, blank network"].path != one["reference"].path
        assert one["reference, blank network"].gradient_calls == one["reference"].gradient_calls
    # Without guidance what it does depends on the noise alone, not on the task or the scene.
    moves = [np.diff(one["none, blank network"].path[:9], axis=0) for one in tried]
    assert np.abs(moves[0] - moves[1]).max() < 1e-6


def test_the_rival_tries_the_same_pairs_and_each_call_of_its_network_counts(
    results, spoken_checkpoint, tmp_path
):
    _, _, config, methods = results
    few = {"starts": 1, "rival": str(spoken_checkpoint), "output_dir": str(tmp_path)}
    tried = list(by_pair(attempts_of(replace(config, **few), {"none": methods["none"]})).values())
    steps = load_policy(spoken_checkpoint).config.num_inference_steps
    for one in tried:
        assert list(one) == ["none", "language"]
        assert one["language"].path[0] == one["none"].path[0]
        assert one["language"].denoiser_calls == 2 * steps
    # Nothing but the sentence differs between the pairs of a start.
    assert tried[0]["language"].path != tried[1]["language"].path


def test_every_steering_leads_a_blank_network_unless_told_otherwise(results, tmp_path):
    _, _, config, methods = results
    every = replace(config, controls=None, starts=1, max_steps=3, output_dir=str(tmp_path))
    found = {one.method for one in attempts_of(every, methods)}
    blank = {name for name in found if name not in methods}
    assert blank == {blank_of(name) for name in ("reference", "best_of_n")}
    page = (tmp_path / "report.html").read_text()
    assert SHARE in page
    assert f"{blank_of('reference')}: not done" in page
    assert SHARE in (tmp_path / "table.md").read_text()


def test_a_policy_of_sentences_is_a_base_that_is_told_nothing_and_a_rival_that_is_steered(
    results, spoken_checkpoint, tmp_path
):
    _, _, config, methods = results
    path = str(spoken_checkpoint)
    spoken = replace(config, starts=1, max_steps=9, output_dir=str(tmp_path))
    spoken = replace(spoken, checkpoint=path, rival=path, rival_methods=("reference",))
    # This policy denoises in two steps; both are guided.
    reference = replace(methods["reference"], unguided_last=0)
    few = {"none": methods["none"], "reference": reference}
    tried = list(by_pair(attempts_of(spoken, few)).values())
    steps = load_policy(spoken_checkpoint).config.num_inference_steps
    for one in tried:
        assert list(one) == ["none", "reference", "language", "language, reference"]
        assert one["none"].denoiser_calls == steps
        assert one["language, reference"].path != one["language"].path
    # Withheld, the sentence makes no difference between the pairs of a start.
    assert tried[0]["none"].path == tried[1]["none"].path
    assert tried[0]["language"].path != tried[1]["language"].path


def test_starts_shared_by_all_tasks_allow_every_one_and_are_filmed(results, tmp_path):
    _, _, config, methods = results
    shared = {
        "starts": 2,
        "max_steps": 5,
        "tasks": ("open_drawer", "turn_on_led"),
        "together": True,
        "videos": 1,
        "output_dir": str(tmp_path),
    }
    attempts = attempts_of(replace(config, **shared), {"none": methods["none"]})
    assert [one.task for one in attempts] == ["open_drawer", "turn_on_led"] * 2
    first, last = attempts[0].start, attempts[-1].start
    films = [video_path(tmp_path, first, one.task, "none") for one in attempts[:2]]
    assert sorted((tmp_path / "videos").iterdir()) == sorted(films)
    assert first != last
    write_gif(films, tmp_path / "both.gif")
    with Image.open(tmp_path / "both.gif") as both:
        assert isinstance(both, GifImageFile)
        width, _ = both.size
        assert width == 2 * 2 * SIDE
        assert both.n_frames > 1
    with pytest.raises(UserError, match="0 allow all of open_drawer, close_drawer"):
        opposites = {"starts": 1, "tasks": ("open_drawer", "close_drawer")}
        evaluate(replace(config, **shared | opposites), methods)


def test_blocks_of_a_start_lie_on_the_table_so_that_the_oracle_sees_them_pushed_and_lifted():
    env = CalvinEnv("builtin")
    tasks = [
        f"{verb}_{colour}_block_{where}"
        for colour in COLOURS
        for verb, where in (("push", "left"), ("push", "right"), ("lift", "table"))
    ]
    for start in sample_starts(env, tasks, 4, seed=0, together=False):
        env.reset(options={"robot_obs": start.robot_obs, "scene_obs": start.scene_obs})
        blocks = env.info().blocks
        for task in start.tasks:
            assert blocks[f"block_{task.split('_')[1]}"].contacts == {(TABLE, TABLE_TOP)}
    env.close()


def test_the_same_evaluation_gives_the_same_attempts(results, tmp_path):
    attempts, _, config, methods = results
    again = attempts_of(replace(config, starts=1, output_dir=str(tmp_path)), methods)
    first = [one for one in attempts if one.start == 0]
    assert [one.path for one in again] == [one.path for one in first]


def test_an_interrupted_comparison_goes_on_and_other_settings_are_refused(results, tmp_path):
    _, _, config, methods = results
    config = replace(config, max_steps=3, output_dir=str(tmp_path))
    only = {"none": methods["none"]}
    whole = [one.path for one in attempts_of(config, only)]
    first, second = sorted((tmp_path / "starts").iterdir())
    finished = first.stat().st_mtime_ns
    for path in (second, tmp_path / "table.md"):
        path.unlink()
    assert [one.path for one in attempts_of(config, only)] == whole
    assert first.stat().st_mtime_ns == finished
    assert (tmp_path / "table.md").exists()
    with pytest.raises(UserError, match="seed: 1000 there, 1 now"):
        evaluate(replace(config, seed=1), only)


def test_jobs_and_processes_share_a_comparison_and_change_no_result(results, tmp_path):
    attempts, _, config, methods = results
    shared = replace(config, output_dir=str(tmp_path), num_workers=2)
    assert evaluate(replace(shared, shard="0/2"), methods) is None
    assert not (tmp_path / "results.json").exists()
    found = attempts_of(replace(shared, shard="1/2"), methods)
    assert [one.path for one in found] == [one.path for one in attempts]
    assert (tmp_path / "report.html").exists()


def test_a_sentence_is_read_once_and_an_unclear_one_ends_it_before_anything_is_tried(
    results, tmp_path, monkeypatch
):
    _, _, config, methods = results
    (tmp_path / "counting.py").write_text(
        "said = []\n"
        "def read(instruction, tasks):\n"
        "    said.append(instruction)\n"
        "    return 'open_drawer', 1.0\n"
        "def unsure(instruction, tasks):\n"
        "    return 'open_drawer', 0.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    few = replace(config, starts=1, max_steps=1, output_dir=str(tmp_path / "out"))
    with pytest.raises(UserError, match="unsure is not sure"):
        evaluate(replace(few, plugin="counting:unsure"), methods)
    assert not (tmp_path / "out").exists()
    attempts = attempts_of(replace(few, plugin="counting:read"), methods)
    assert {one.understood for one in attempts} == {"open_drawer"}
    said = importlib.import_module("counting").said
    assert sorted(said) == sorted({one.instruction for one in attempts})


def test_keys_of_the_command_line_hold_for_all_methods_but_the_base(
    checkpoint, demonstrations, tmp_path
):
    attempts = compare(
        [
            f"checkpoint={checkpoint}", f"output_dir={tmp_path}", "starts=1", "max_steps=1",
            "tasks=turn_on_led", "methods=[none,reference]", "controls=[]",
            "steering.encoder=lexical", "steering.samples=3",
            f"steering.demonstrations={demonstrations}",
        ]
    )  # fmt: skip
    assert attempts is not None
    assert [len(one.samples) for one in attempts] == [0, 3]


def synthetic(method, start, success, others=()):
    return Attempt(
        start, method, "open_drawer", "open the drawer", "open_drawer", success, list(others),
        steps=1, prediction_ms=10.0, denoiser_calls=10, gradient_calls=0, path=[[0, 0, 0]],
    )  # fmt: skip


def test_report_counts_starts_from_1_and_says_what_each_method_is(tmp_path):
    names = ("none", "pointing", blank_of("pointing"), "language", "language, pointing")
    attempts = [synthetic(name, start, True) for start in (4, 7) for name in names]
    settings = {"checkpoint": {"path": "a.ckpt"}, "env": {"scene": "builtin"}, "seed": 0}
    made_by = {"settings": settings, "environment": None}
    cloud = np.zeros((1, 3), np.float32)
    write_report(tmp_path, made_by, attempts, {4: cloud, 7: cloud})
    page = (tmp_path / "report.html").read_text()
    written = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert written is not None
    data = json.loads(written[1])
    assert [panel["title"].split(":")[0] for panel in data["panels"]] == ["start 1", "start 2"]
    assert all(row["note"] for row in data["bars"][0]["rows"])


def test_paired_gain_is_the_mean_difference_within_its_interval():
    attempts = []
    for start in range(20):
        attempts.append(synthetic("none", start, start % 4 == 0, ["turn_on_led"]))
        attempts.append(synthetic("reference", start, start % 10 != 0))
    gain = paired_gain(attempts, "reference")
    assert gain.interval is not None
    assert gain.mean == pytest.approx(18 / 20 - 5 / 20)
    low, high = gain.interval
    # Of these twenty independent differences the half width by Student is 0.27.
    assert gain.mean - low == pytest.approx(0.27, abs=0.05)
    assert high - gain.mean == pytest.approx(0.27, abs=0.05)
    base, steered = rows(attempts)
    assert base.gain is None
    assert base.others.value == 1.0
    assert steered.others.value == 0.0
    assert "+65" in table_cells(attempts)[2][3]


def test_the_share_of_a_policy_is_what_goes_beyond_its_blank_control():
    attempts = []
    for start in range(10):
        attempts.append(synthetic("none", start, False))
        attempts.append(synthetic("pointing", start, start < 9))
        attempts.append(synthetic(blank_of("pointing"), start, start < 2))
    shares = {row.method: row.share for row in rows(attempts)}
    assert shares["pointing"] is not None
    assert shares["pointing"].mean == pytest.approx(0.7)
    assert shares["none"] is shares[blank_of("pointing")] is None
    headings, _, pointing, _ = table_cells(attempts)
    assert headings[1] == "the policy's own share, paired (95 %)"
    assert pointing[1].startswith("+70 (")


def test_a_gain_over_starts_is_no_surer_for_many_tasks_of_each():
    attempts = [
        replace(synthetic(method, start, method != "none" and start % 2 == 0), task=task)
        for start in range(10)
        for task in ("open_drawer", "turn_on_led", "move_slider_left", "turn_on_lightbulb")
        for method in ("none", "reference")
    ]
    one_task = [one for one in attempts if one.task == "open_drawer"]
    assert paired_gain(attempts, "reference") == paired_gain(one_task, "reference")


def test_a_gain_from_one_start_has_no_interval():
    attempts = [synthetic("none", 3, False), synthetic("reference", 3, True)]
    assert str(paired_gain(attempts, "reference")) == "+100 (too few starts)"


def test_bad_input_is_refused_before_the_first_attempt(results, spoken_checkpoint, tmp_path):
    _, _, config, methods = results
    for changes, message in (
        ({"checkpoint": None}, "no checkpoint"),
        ({"starts": 0}, "starts=0"),
        ({"tasks": ("open_draw",)}, "open_drawer"),
        ({"controls": ("value_map",)}, "controls: 'value_map'"),
        ({"rival_methods": ("reference",)}, "rival_methods=.reference.: expected"),
        ({"tasks": ()}, r"tasks=\[\]: expected"),
        ({"seed": -1}, "seed=-1"),
        ({"videos": "x"}, "videos=x"),
        ({"device": "tpu"}, "device=tpu"),
        ({"precision": "fp8"}, "precision=fp8"),
        ({"rival": str(spoken_checkpoint), "rival_guidance": "x"}, "rival_guidance=x"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(replace(config, **changes, output_dir=str(tmp_path / "out")), methods)
    other = replace(methods["reference"], demonstrations="other.npz")
    with pytest.raises(UserError, match="different demonstrations"):
        evaluate(config, {**methods, "other": other})
    with pytest.raises(UserError, match="'none' is missing"):
        evaluate(config, {"reference": methods["reference"]})
    assert not (tmp_path / "out").exists()
