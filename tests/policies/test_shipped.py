"""The policy that comes with the package is small, complete and an export like any other."""

import json

from langsteer.policies import shipped_policy
from langsteer.policies.loading import SHIPPED, checkpoint_identity, load_policy, reads_sentences

MOST_BYTES = 8_000_000


def test_it_is_small_and_has_a_model_card():
    files = list(shipped_policy().iterdir())
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert {file.name for file in files} == {"MODEL_CARD.md", "policy.json", "policy.safetensors"}


def test_its_name_stands_for_its_folder():
    assert checkpoint_identity(SHIPPED) == checkpoint_identity(shipped_policy())
    assert reads_sentences(SHIPPED)
    policy = load_policy(SHIPPED)
    assert policy.config.use_pc_color
    assert policy.pipeline is not None


def test_it_names_no_path_of_the_machine_that_trained_it():
    description = json.loads((shipped_policy() / "policy.json").read_text(encoding="utf-8"))
    assert "/" not in json.dumps(description["origin"])
