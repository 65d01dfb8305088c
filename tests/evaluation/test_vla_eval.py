"""vla-eval's interfaces around our chains and our policies."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pybullet")
pytest.importorskip("vla_eval")

from vla_eval.model_servers.base import SessionContext
from vla_eval.specs import check_specs

from langsteer.calvin.benchmark import chain
from langsteer.calvin.instructions import phrasings
from langsteer.compat.vla_eval_benchmark import CalvinBenchmark
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.long_horizon import play_chain
from langsteer.evaluation.player import Player
from langsteer.policies.agent import Agent
from langsteer.serving.vla_eval_server import LangSteerServer

STILL = {"actions": np.array([0, 0, 0, 0, 0, 0, 1], np.float32)}


@pytest.fixture
def benchmark():
    made = CalvinBenchmark(num_sequences=3, renderer="depth", ep_len=4)
    yield made
    made.cleanup()


def test_episode_is_a_chain_and_ends_at_its_first_failure(benchmark):
    task = benchmark.get_tasks()[2]
    message = benchmark.make_obs(benchmark.reset(task), task)
    assert message["task_description"] == phrasings(chain(2).tasks[0])[0]
    assert message["depths"]["depth_static"].shape == (200, 200)
    results = [benchmark.step(STILL) for _ in range(4)]
    assert [benchmark.check_done(result) for result in results] == [False] * 3 + [True]
    assert benchmark.get_step_result(results[-1]) == {"success": False, "completed_subtasks": 0}
    with pytest.raises(UserError, match="expected 'actions'"):
        benchmark.step({"action": STILL})


def test_next_task_of_a_chain_tells_the_server_to_begin_anew(benchmark, monkeypatch):
    task = benchmark.get_tasks()[0]
    assert "episode_restart" not in benchmark.make_obs(benchmark.reset(task), task)
    monkeypatch.setattr(benchmark._env, "_act", lambda action: True)  # as if a task were done
    message = benchmark.make_obs(benchmark.step(STILL).obs, task)
    assert message["episode_restart"]
    assert message["task_description"] == phrasings(chain(0).tasks[1])[0]


def test_benchmark_process_needs_no_torch():
    code = "import langsteer.compat.vla_eval_benchmark, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_server_takes_the_steps_of_our_own_evaluation(benchmark, checkpoint):
    server = LangSteerServer(str(checkpoint))
    assert not check_specs(
        server.get_action_spec(),
        benchmark.get_action_spec(),
        server.get_observation_spec(),
        benchmark.get_observation_spec(),
    )
    task, session = benchmark.get_tasks()[1], SessionContext("session", "episode")
    raw, states = benchmark.reset(task), []
    for _ in range(4):
        message = benchmark.make_obs(raw, task)
        states.append(message["states"])
        raw = benchmark.step(server.predict(message, session)).obs
        session._increment_step()
    agent = Agent(server._policy)
    player = Player(CalvinEnv(renderer="depth", pipeline=agent.pipeline), agent)
    np.testing.assert_array_equal(player_states(player, 1), states)
    player.close()


def player_states(player, number):
    """States (4, 15) of our own evaluation of a chain's first task, noise from seed 0."""
    sentences = {task: phrasings(task)[0] for task in chain(number).tasks}
    play, runs = player.play, []

    def play_from_seed_0(task, words, seed, *rest):
        runs.append(play(task, words, 0, *rest))
        return runs[-1]

    player.play = play_from_seed_0
    play_chain(player, number, sentences, max_steps=4)
    return runs[0].robot_obs[:4]
