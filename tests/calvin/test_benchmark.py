"""The long-horizon benchmark is CALVIN's own, to the last bit."""

import hashlib
import json

import pytest

from langsteer.calvin import benchmark
from langsteer.errors import UserError

OFFICIAL_SHA256 = "13bc4fad80a302e6405e5f4f800cc028789a245409cd12df39b783099ad4860f"


def test_all_chains_are_the_official_ones():
    chains = benchmark.chains()
    text = json.dumps([[chain.initial_state, chain.tasks] for chain in chains], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == OFFICIAL_SHA256


def test_first_chains_and_their_states_equal_the_official_generator(shared):
    official = json.loads((shared / "reference/eval_sequences_first50.json").read_text())
    for chain, expected in zip(benchmark.chains(len(official)), official, strict=True):
        assert chain.initial_state == expected["initial_state"]
        assert list(chain.tasks) == expected["sequence"]
        robot_obs, scene_obs = benchmark.initial_observations(chain.initial_state)
        assert robot_obs.tolist() == expected["robot_obs"]
        assert scene_obs.tolist() == expected["scene_obs"]


def test_seed_hash_equals_the_test_vector_of_pyhash():
    assert benchmark.fnv1_seed("test") == 3910690890


@pytest.mark.parametrize("count", [0, 1001])
def test_a_count_beyond_the_benchmark_is_refused(count):
    with pytest.raises(UserError, match="1000"):
        benchmark.chains(count)


def test_one_chain_is_the_same_alone_and_among_others():
    alone = [benchmark.chain(number) for number in range(5)]
    assert alone == benchmark.chains(5)
    with pytest.raises(UserError, match=r"chain 1000.*0\.\.999"):
        benchmark.chain(1000)
