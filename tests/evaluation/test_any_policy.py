"""The benchmark plays a policy of any kind, in a process without PyTorch."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("pybullet")

WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None     # an import of it fails
import numpy as np
from langsteer.calvin.benchmark import chain
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.long_horizon import play_chain, read_instructions
from langsteer.evaluation.long_horizon_report import BenchmarkSummary
from langsteer.evaluation.player import Player

class Still:
    n_obs_steps, sees_colours, told = 1, False, []
    def reset(self, seed=0): ...
    def instruct(self, sentence): self.told.append(sentence)
    def observe(self, observation): ...
    def act(self, observation): return np.zeros((8, 7))

policy = Still()
player = Player(CalvinEnv("builtin", pipeline=ObservationPipeline(n_points=64)), policy)
result = play_chain(player, 7, read_instructions(None), max_steps=9)
player.close()
assert result["tasks"] == list(chain(7).tasks)
print(json.dumps({"told": policy.told, "length": BenchmarkSummary([result]).average_length}))
"""


def test_a_chain_is_played_without_pytorch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["told"]) == 1
    assert found["length"] == 0
