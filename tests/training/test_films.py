"""Films at the checkpoints change nothing of a training, and cannot end it."""

import pytest
import torch

from langsteer.configuration import compose
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import train


def trained(training, name, filmer=None, *overrides):
    """The content of the last checkpoint of a run with a filmer."""
    values = [*training.defaults, f"training.checkpoint_dir={training.folder}", *overrides]
    config = compose("train", [*values, f"training.experiment_name={name}"])
    config["training"]["dataset"]["zarr_path"] = str(training.store)
    assert train(RunConfig.from_dict(config), filmer)
    return training.latest(name)


def noisy_filmer(policy, path, stopped):
    assert not policy.training
    assert not stopped()
    torch.rand(3)
    path.write_bytes(b"film")
    return "open_drawer: failed"


def test_a_film_is_taken_at_each_checkpoint_and_changes_no_weight(training):
    plain = trained(training, "plain")
    filmed = trained(training, "filmed", noisy_filmer)
    films = sorted(path.name for path in (training.folder / "filmed" / "videos").iterdir())
    assert films == ["epoch_0001.mp4", "epoch_0002.mp4", "epoch_0003.mp4"]
    for name, weight in plain["model"].items():
        assert torch.equal(weight, filmed["model"][name]), name


def test_a_film_that_fails_is_told_once_and_training_goes_on(training, capsys):
    def fail(policy, path, stopped):
        raise RuntimeError("the codec is gone")

    trained(training, "broken", fail)
    assert capsys.readouterr().out.count("no more films: the codec is gone") == 1


def test_the_simulator_films_a_training_for_wandb(training, monkeypatch):
    pytest.importorskip("pybullet")
    pytest.importorskip("wandb")
    from langsteer.evaluation.run import EnvSettings
    from langsteer.evaluation.validation_video import ValidationVideo

    monkeypatch.setenv("WANDB_MODE", "offline")
    filmer = ValidationVideo("open_drawer", EnvSettings())
    once = ("training.num_epochs=1", "training.wandb.enabled=true")
    trained(training, "seen", filmer, *once)
    film = training.folder / "seen" / "videos" / "epoch_0001.mp4"
    assert film.read_bytes()[4:8] == b"ftyp"
    assert list((training.folder / "seen" / "wandb").glob("offline-run-*/files/media/videos/val/*"))
