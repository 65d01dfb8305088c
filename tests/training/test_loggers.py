"""A run's numbers are always in local files, and in W&B where it is wanted and there."""

import json
import logging
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from langsteer.training import curves, loggers
from langsteer.training.config import WandbConfig
from langsteer.training.loggers import NoWandb, RunLogger, make_wandb, read_metrics

NUMBERS = {"step", "epoch", "loss", "learning_rate", "gradient_norm", "samples_per_second"}


@pytest.fixture
def wandb_wanted(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def fake_wandb(monkeypatch, wandb_wanted):
    """Stands in for the service: remembers what it is given."""
    calls = types.SimpleNamespace(init=[], log=[], metrics=[])
    run = types.SimpleNamespace(
        log=lambda record, step: calls.log.append((step, record)),
        define_metric=lambda name, summary: calls.metrics.append((name, summary)),
        finish=lambda: None,
    )
    module = types.ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)

    def init(**arguments):
        calls.init.append(arguments)
        return run

    monkeypatch.setattr(module, "init", init, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_run_writes_metrics_log_and_curves(training):
    training.here("training.experiment_name=run")
    folder = training.folder / "run"
    records = read_metrics(folder / "metrics.jsonl")
    steps = [record for record in records if "loss" in record]
    epochs = [record for record in records if "val_loss" in record]
    assert [record["step"] for record in steps] == list(range(2, 34, 2))
    assert all(set(record) == NUMBERS for record in steps)
    assert [record["epoch"] for record in epochs] == [1.0, 2.0, 3.0]
    assert {"val_position_error_mm", "val_rotation_error_deg", "val_gripper_accuracy"} <= set(
        epochs[0]
    )
    assert "epoch 3/3 step 33: train_loss" in (folder / "train.log").read_text()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_logged_learning_rate_is_the_one_that_was_used(training):
    training.here("training.experiment_name=run", "training.log_every=1")
    records = read_metrics(training.folder / "run" / "metrics.jsonl")
    rates = [record["learning_rate"] for record in records if "loss" in record]
    assert rates[:11] == pytest.approx([1e-5 * step for step in range(11)])


def test_training_loss_is_the_mean_over_steps(training):
    training.here("training.experiment_name=run", "training.log_every=1", "training.num_epochs=1")
    records = read_metrics(training.folder / "run" / "metrics.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    assert records[-1]["train_loss"] == pytest.approx(sum(losses) / len(losses))


def test_loss_falls(training):
    training.here(
        "training.experiment_name=run",
        "training.num_epochs=30",
        "training.learning_rate=0.003",
        "training.checkpoint_every=30",
        "training.val_every=30",
    )
    records = read_metrics(training.folder / "run" / "metrics.jsonl")
    losses = [record["train_loss"] for record in records if "train_loss" in record]
    assert losses[-1] < 0.75 * losses[0]


def test_start_says_what_is_trained_on_what(training):
    output = training.here("training.experiment_name=run", "training.num_epochs=1")
    for words in (
        "1 process, cpu, ",
        ", fp32, fused AdamW",
        "parameters, sample prediction",
        "5 training episodes with 83 windows; validation: 1 episodes with 12 windows (official)",
        "effective batch size 8 = 8 x 1 processes x 1 accumulated; 11 steps per epoch, 11 in all",
    ):
        assert words in output


def test_records_behind_a_checkpoint_are_dropped_and_a_torn_line_too(tmp_path):
    log = RunLogger(tmp_path, keep=0, wandb=NoWandb())
    for step in range(4):
        log.metrics({"step": step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    log = RunLogger(tmp_path, keep=2, wandb=NoWandb())
    log.metrics({"step": 2, "again": True})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 0},
        {"step": 1},
        {"step": 2, "again": True},
    ]


def test_wandb_gets_all_numbers_and_the_same_run_after_a_resume(training, fake_wandb):
    overrides = ["training.experiment_name=run", "training.wandb.enabled=true"]
    training.here(*overrides)
    training.here(*overrides, "training.resume=true", "training.num_epochs=4")
    first, second = fake_wandb.init
    assert first["project"] == "langsteer_dp3"
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert first["config"]["training"]["batch_size"] == 8
    keys = {key for _, record in fake_wandb.log for key in record}
    assert keys >= {"val_loss", "train_loss", "learning_rate", "epoch"}
    assert keys >= {"train/loss", "train/samples_per_second", "val/loss", "val/gripper_accuracy"}
    assert ("val/loss", "min") in fake_wandb.metrics
    assert ("val/gripper_accuracy", "max") in fake_wandb.metrics
    assert [step for step, _ in fake_wandb.log] == sorted(step for step, _ in fake_wandb.log)


def test_wandb_mode_of_the_environment_has_its_say_unless_configured(fake_wandb, tmp_path):
    online, offline = WandbConfig(mode="online"), WandbConfig(mode="offline")
    for config, given in ((online, None), (offline, "offline")):
        make_wandb(config, tmp_path, {}, logging.getLogger("test"))
        assert fake_wandb.init[-1]["mode"] == given


def test_missing_wandb_warns_and_training_goes_on(training, monkeypatch, wandb_wanted):
    monkeypatch.setitem(sys.modules, "wandb", None)
    output = training.here("training.experiment_name=run", "training.wandb.enabled=true")
    assert "wandb is not installed" in output
    assert "finished" in output


def test_wandb_out_of_reach_warns_and_training_goes_on(training, fake_wandb, monkeypatch):
    def fail(**arguments):
        raise ConnectionError("no route to the service")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    output = training.here("training.experiment_name=run", "training.wandb.enabled=true")
    assert "no route to the service" in output
    assert "finished" in output


def test_wandb_that_fails_later_warns_once_and_training_goes_on(training, fake_wandb, monkeypatch):
    def fail(*arguments, **more):
        raise ConnectionResetError("the service is gone")

    run = types.SimpleNamespace(log=fail, finish=fail, define_metric=lambda name, summary: None)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **arguments: run)
    output = training.here("training.experiment_name=run", "training.wandb.enabled=true")
    assert output.count("the service is gone") == 1
    assert "finished" in output


def test_wandb_offline_writes_a_run_that_can_be_synced_later(training):
    pytest.importorskip("wandb")
    training.run(
        "training.experiment_name=run",
        "training.num_epochs=1",
        "training.wandb.enabled=true",
        "training.wandb.mode=offline",
        WANDB_MODE="offline",
    )
    folder = training.folder / "run"
    number = (folder / "wandb_run_id.txt").read_text()
    assert list((folder / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))


def test_curves_are_drawn_without_reading_the_records_again(tmp_path, monkeypatch):
    """Two hundred thousand records took seconds at each validation."""
    folder = tmp_path / "run"
    folder.mkdir()
    log = loggers.RunLogger(folder, 0, loggers.NoWandb())
    log.metrics({"step": 1, "epoch": 0, "loss": 0.5, "learning_rate": 0.1})
    log.close()
    resumed = loggers.RunLogger(folder, 1, loggers.NoWandb())
    resumed.metrics({"step": 2, "epoch": 1, "loss": 0.4, "val_loss": 0.3})
    drawn = []
    monkeypatch.setattr(loggers, "draw_curves", lambda records, path: drawn.extend(records))
    monkeypatch.setattr(loggers, "read_metrics", None)
    resumed.draw_curves()
    resumed.close()
    assert [(record["step"], record["loss"]) for record in drawn] == [(1, 0.5), (2, 0.4)]
    assert drawn[1]["val_loss"] == 0.3


@pytest.mark.parametrize(("low", "high"), [(0.14, 0.35), (0.149, 0.151), (0.02, 3.0)])
def test_a_losses_axis_has_three_numbers_at_least_however_narrow_it_is(low, high):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(yscale="log", ylim=(low, high))
    curves.label_ticks(axes)
    figure.canvas.draw()
    labels = [*axes.yaxis.get_majorticklabels(), *axes.yaxis.get_minorticklabels()]
    shown = [float(label.get_text() or "nan") for label in labels]
    assert sum(low <= value <= high for value in shown) >= 3


def test_long_curves_are_thinned_and_end_at_the_last_step():
    points = [(step, 1.0) for step in range(200_001)]
    drawn = curves.thinned(points)
    assert len(drawn) <= curves._MOST_POINTS + 1
    assert drawn[-1] == points[-1]
    assert curves.thinned(points[:10]) == points[:10]
