"""What tells runs apart: the checkpoint's content, and the sentences."""

import pytest
import torch

pytest.importorskip("pybullet")

from langsteer.calvin.task import TASKS
from langsteer.errors import UserError
from langsteer.evaluation.long_horizon import read_instructions
from langsteer.policies.loading import checkpoint_identity


def test_a_checkpoint_of_many_tensors_is_told_from_one_that_differs_in_its_first(tmp_path):
    identities = []
    for value in (0.0, 1.0):
        weights = {f"layer.{index}": torch.zeros(1) for index in range(1500)}
        weights["layer.0"] += value
        path = tmp_path / "latest.ckpt"
        head = {"format": "langsteer-checkpoint", "version": 1, "config": {"policy": {}}}
        torch.save({**head, "pipeline": None, "model": weights}, path)
        identities.append(checkpoint_identity(path))
    first, other = identities
    assert first["bytes"] == other["bytes"]
    assert first["sha256_of_end"] != other["sha256_of_end"]


def test_sentences_that_are_no_lists_are_refused_and_not_cut_to_a_letter(tmp_path):
    path = tmp_path / "sentences.yaml"
    path.write_text("\n".join(f"{task}: do it" for task in TASKS))
    with pytest.raises(UserError, match="a list of sentences for each"):
        read_instructions(str(path))
    path.write_text("\n".join(f"{task}: [do it, again]" for task in TASKS))
    assert set(read_instructions(str(path)).values()) == {"do it"}
