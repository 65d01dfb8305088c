"""The policies that come with the package are small, complete and exports like any other."""

import json

import pytest

from langsteer.policies import shipped_base, shipped_policy
from langsteer.policies.loading import (
    SHIPPED,
    SHIPPED_BASE,
    checkpoint_identity,
    load_policy,
    reads_sentences,
)

MOST_BYTES = 8_000_000

each = pytest.mark.parametrize(
    ("name", "folder"), [(SHIPPED, shipped_policy()), (SHIPPED_BASE, shipped_base())]
)


@each
def test_it_is_small_and_has_a_model_card(name, folder):
    files = list(folder.iterdir())
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert {file.name for file in files} == {"MODEL_CARD.md", "policy.json", "policy.safetensors"}


@each
def test_its_name_stands_for_its_folder(name, folder):
    assert checkpoint_identity(name) == checkpoint_identity(folder)
    assert reads_sentences(name)
    policy = load_policy(name)
    assert policy.config.use_pc_color
    assert policy.pipeline is not None


@each
def test_it_names_no_path_of_the_machine_that_trained_it(name, folder):
    description = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    assert "/" not in json.dumps(description["origin"])
