"""Checkpoints are complete, never half-written, and kept by validation loss alone."""

import json
import os
from dataclasses import asdict

import pytest
import torch

from langsteer.errors import UserError
from langsteer.policies.loading import load_policy
from langsteer.training import checkpoint_util
from langsteer.training.checkpoint_reading import (
    find_experiment,
    newest_checkpoint,
    verified_checkpoint,
)
from langsteer.training.checkpoint_util import CheckpointManager, provenance
from langsteer.training.run_state import Progress


def payload(step=0, **more):
    return {
        "format": "langsteer-checkpoint",
        "version": 1,
        "config": {"policy": {}, "training": {}},
        "pipeline": None,
        "data": {"windows": "", "effective_batch_size": 1},
        "optimizer": {},
        "progress": {**asdict(Progress(step=step)), "ema_updates": 0},
        "rng": {"torch": torch.get_rng_state()},
        "metrics": {},
        "provenance": provenance(),
        "model": {"weight": torch.full((1000,), float(step))},
        **more,
    }


def save(manager, epoch, val_loss):
    manager.save_epoch(payload(epoch), epoch, val_loss)
    manager.wait()


def files(folder):
    return sorted(path.name for path in folder.glob("*.ckpt"))


def test_best_by_validation_loss_are_kept_and_the_others_deleted(tmp_path):
    manager = CheckpointManager(tmp_path, top_k=2)
    for epoch, loss in enumerate([0.5, 0.1, 0.4, 0.3, 0.9], start=1):
        save(manager, epoch, loss)
    assert files(tmp_path) == ["best.ckpt", "epoch_0002.ckpt", "epoch_0004.ckpt", "latest.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["progress"]["step"] == 2
    assert torch.load(tmp_path / "latest.ckpt", weights_only=True)["progress"]["step"] == 5
    assert manager.index() == {"epoch_0002.ckpt": 0.1, "epoch_0004.ckpt": 0.3}


def test_without_validation_the_newest_are_kept_also_past_epoch_9999(tmp_path):
    manager = CheckpointManager(tmp_path, top_k=2)
    for epoch in (9998, 9999, 10_000, 10_001):
        save(manager, epoch, None)
    assert files(tmp_path)[1:-1] == ["epoch_10000.ckpt", "epoch_10001.ckpt"]


def test_latest_and_best_cost_no_second_copy(tmp_path):
    save(CheckpointManager(tmp_path, top_k=3), 1, 0.5)
    inodes = {(tmp_path / name).stat().st_ino for name in files(tmp_path)}
    assert len(files(tmp_path)) == 3
    assert len(inodes) == 1


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    weights, written = torch.zeros(1000), []
    real = torch.save

    def slow(content, path):
        weights.fill_(7.0)  # the next step, meanwhile
        written.append(path)
        real(content, path)

    monkeypatch.setattr(torch, "save", slow)
    manager = CheckpointManager(tmp_path, top_k=1)
    manager.save_latest(payload(model={"weight": weights}))
    manager.wait()
    assert written
    saved = torch.load(tmp_path / "latest.ckpt", weights_only=True)
    assert (saved["model"]["weight"] == 0).all()


def test_failed_writing_is_an_error_soon_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path, top_k=1)
    save(manager, 1, 0.5)

    def full_disk(content, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    manager.save_epoch(payload(2), 2, 0.4)
    with pytest.raises(UserError, match="No space left"):
        manager.wait()
    assert verified_checkpoint(tmp_path / "latest.ckpt")["progress"]["step"] == 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("after", range(9))
def test_killed_at_any_file_operation_of_a_save_the_folder_stays_usable(
    tmp_path, monkeypatch, after
):
    """Stops the writing after so many file operations, then goes on as a new process would."""
    save(CheckpointManager(tmp_path, top_k=1), 1, 0.5)
    manager = CheckpointManager(tmp_path, top_k=1)
    operations = iter(range(after))

    class Killed(BaseException):
        pass

    def counted(real):
        def operation(*arguments, **keywords):
            if next(operations, None) is None:
                raise Killed
            return real(*arguments, **keywords)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_util, "_write", counted(checkpoint_util._write))
        patch.setattr(checkpoint_util, "_link_or_copy", counted(checkpoint_util._link_or_copy))
        patch.setattr(manager, "_write_index", counted(manager._write_index))
        patch.setattr(type(tmp_path), "unlink", counted(type(tmp_path).unlink))
        with pytest.raises((UserError, Killed)):
            manager.save_epoch(payload(2), 2, 0.4)
            manager.wait()
            raise Killed
    _, found = newest_checkpoint(tmp_path, print)
    assert found["progress"]["step"] in (1, 2)
    save(CheckpointManager(tmp_path, top_k=1), 3, 0.1)
    assert files(tmp_path) == ["best.ckpt", "epoch_0003.ckpt", "latest.ckpt"]


def test_leftovers_of_a_killed_run_are_removed(training):
    folder = training.folder / "a"
    folder.mkdir()
    for name in (".epoch_0001.ckpt.1.tmp", ".metrics.jsonl.1.tmp", ".curves.png.1.tmp"):
        (folder / name).write_bytes(b"half")
    training.here("training.experiment_name=a", "training.num_epochs=1")
    assert not list(folder.glob(".*.tmp"))


def test_a_run_killed_after_its_last_epoch_appeared_ends_as_the_undisturbed_one(tmp_path):
    """Of the last save only the file was written: no name is linked and none deleted."""
    manager = CheckpointManager(tmp_path, top_k=1)
    save(manager, 1, 0.5)
    manager._write_index({"epoch_0001.ckpt": 0.5, "epoch_0002.ckpt": 0.4})
    torch.save(payload(2), tmp_path / "epoch_0002.ckpt")
    manager.settle()
    assert files(tmp_path) == ["best.ckpt", "epoch_0002.ckpt", "latest.ckpt"]
    for name in ("best.ckpt", "latest.ckpt"):
        assert (tmp_path / name).samefile(tmp_path / "epoch_0002.ckpt")
    assert manager.index() == {"epoch_0002.ckpt": 0.4}


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch_0001.ckpt": "x"}', "[" * 100_000])
def test_a_damaged_list_is_made_again_from_the_files(tmp_path, text):
    manager = CheckpointManager(tmp_path, top_k=2)
    for epoch, loss in ((1, 0.5), (2, 0.4)):
        manager.save_epoch(payload(epoch, metrics={"val_loss": loss}), epoch, loss)
    manager.wait()
    (tmp_path / "checkpoints.json").write_text(text)
    assert manager.index() == {"epoch_0001.ckpt": 0.5, "epoch_0002.ckpt": 0.4}


def test_a_list_cannot_have_other_files_deleted(tmp_path):
    (tmp_path / "precious").touch()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints.json").write_text(json.dumps({"../precious": 0.9}))
    save(CheckpointManager(folder, top_k=1), 1, 0.5)
    assert (tmp_path / "precious").exists()


def test_newest_is_what_was_written_last_though_the_run_went_back_to_an_earlier_epoch(tmp_path):
    manager = CheckpointManager(tmp_path, top_k=2)
    for epoch, loss in enumerate([0.5, 0.1, 0.4], start=1):
        save(manager, epoch, loss)
    manager.save_latest(payload(1))  # resumed from epoch 1, and stopped
    manager.wait()
    for path in tmp_path.glob("*.ckpt"):  # copied, in whatever order
        os.utime(path, (1, 1))
    path, found = newest_checkpoint(tmp_path, print)
    assert (path.name, found["progress"]["step"]) == ("latest.ckpt", 1)


def test_newest_is_an_epoch_that_was_not_named_latest_yet(tmp_path):
    """A run that was killed between the two names has an older latest.ckpt."""
    manager = CheckpointManager(tmp_path, top_k=3)
    save(manager, 1, 0.5)
    old = (tmp_path / "latest.ckpt").read_bytes()
    save(manager, 2, 0.6)
    (tmp_path / "latest.ckpt").unlink()
    (tmp_path / "latest.ckpt").write_bytes(old)
    assert newest_checkpoint(tmp_path, print)[0].name == "epoch_0002.ckpt"


def test_flipped_bit_is_noticed(tmp_path):
    manager = CheckpointManager(tmp_path, top_k=3)
    save(manager, 1, 0.5)
    manager.save_latest(payload(2))
    manager.wait()
    content = bytearray((tmp_path / "latest.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "latest.ckpt").write_bytes(content)
    said: list[str] = []
    path, found = newest_checkpoint(tmp_path, said.append)
    assert (path.name, found["progress"]["step"]) == ("epoch_0001.ckpt", 1)
    assert "checksum" in said[0]


def test_folder_without_a_readable_checkpoint_is_an_error_that_names_them(tmp_path):
    (tmp_path / "latest.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"latest\.ckpt cannot be read"):
        newest_checkpoint(tmp_path, lambda text: None)


def test_only_dated_runs_of_the_same_name_are_found_without_a_name(tmp_path):
    for age, name in enumerate(
        ["dp3_calvin_20260102", "dp3_calvin_20260101_2", "dp3_calvin_ablation", "other_20260103"]
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "latest.ckpt").touch()
        os.utime(tmp_path / name / "latest.ckpt", (age, age))
    (tmp_path / "dp3_calvin_20260109").mkdir()  # without a checkpoint
    found = find_experiment(tmp_path, None, "dp3_calvin")
    assert found is not None
    assert found.name == "dp3_calvin_20260101_2"


def test_last_epoch_is_saved_whatever_checkpoint_every_is(training):
    training.here("training.experiment_name=run", "training.checkpoint_every=2")
    assert training.latest("run")["progress"]["epoch"] == 3
    assert (training.folder / "run" / "epoch_0003.ckpt").exists()


def test_epochs_of_a_checkpoint_are_validated_even_where_val_every_skips_them(training):
    """So checkpoints compare by validation loss and never by training loss."""
    output = training.here("training.experiment_name=run", "training.val_every=2")
    index = json.loads((training.folder / "run" / "checkpoints.json").read_text())
    assert len(index) == 3
    assert all(isinstance(loss, float) for loss in index.values())
    assert output.count("val_loss") == 3


def test_epoch_without_validation_ends_like_any_other(training):
    output = training.here(
        "training.experiment_name=run", "training.val_every=2", "training.checkpoint_every=3"
    )
    assert "epoch 1/3" in output
    assert "val_loss" not in next(line for line in output.splitlines() if "epoch 1/3" in line)


def test_checkpoint_is_complete_and_opens_without_running_code(training):
    training.here("training.experiment_name=run")
    content = training.latest("run")  # weights_only
    assert content["format"] == "langsteer-checkpoint"
    assert content["config"]["training"]["seed"] == 42
    assert content["config"]["policy"]["down_dims"] == [16, 32]
    assert content["pipeline"]["n_points"] == 32
    for part in ("model", "ema"):
        assert "normalizer.action.scale" in content[part]
    assert content["progress"]["ema_updates"] == content["progress"]["step"] == 33
    assert content["scheduler"] == {"step": 33, "total_steps": 33}
    assert set(content["provenance"]) == {"langsteer", "git_commit", "torch", "created"}
    assert len(content["optimizer"]["state"]) > 10
    assert "val_loss" in content["metrics"]


def test_policy_of_a_checkpoint_is_the_one_that_was_validated(training):
    training.here("training.experiment_name=run")
    path, content = training.folder / "run" / "latest.ckpt", training.latest("run")
    averaged, last = load_policy(path), load_policy(path, use_ema=False)
    for policy, part in ((averaged, "ema"), (last, "model")):
        for key, tensor in policy.state_dict().items():
            assert torch.equal(tensor, content[part][key])
    one, other = (policy.get_parameter("model.final_conv.1.weight") for policy in (averaged, last))
    assert not torch.equal(one, other)


def test_run_without_averaging_saves_and_loads(training):
    training.here("training.experiment_name=run", "training.use_ema=false")
    assert training.latest("run")["ema"] is None
    load_policy(training.folder / "run" / "latest.ckpt")
    training.here(
        "training.experiment_name=run",
        "training.use_ema=false",
        "training.resume=true",
        "training.num_epochs=4",
    )
    assert training.latest("run")["progress"]["epoch"] == 4
