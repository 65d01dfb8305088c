"""A policy that was trained with sentences is told the one of its task, wherever it is run."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet")

from langsteer.configuration import compose
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.evaluation.attempts import RIVAL, contenders, load_rival
from langsteer.evaluation.calvin_adapter import CalvinModel
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.player import Player
from langsteer.policies.agent import Agent, load_agent
from langsteer.policies.loading import load_policy
from langsteer.sentences import HashedWords
from langsteer.steering.config import SteeringConfig

OPEN, CLOSE = "open the drawer", "close the drawer"
FRAME = {"point_cloud": np.full((64, 3), 0.3), "robot_obs": np.linspace(-0.5, 0.5, 15)}


def actions(agent, sentence):
    agent.reset(seed=0)
    agent.instruct(sentence)
    return agent.act(FRAME)


def test_the_sentence_alone_decides_between_two_actions(spoken_checkpoint):
    agent = load_agent(spoken_checkpoint)
    assert np.array_equal(actions(agent, OPEN), actions(agent, OPEN))
    assert not np.array_equal(actions(agent, OPEN), actions(agent, CLOSE))
    assert not np.array_equal(actions(agent, OPEN), actions(agent, None))


def test_the_sentence_is_embedded_as_in_training(spoken_checkpoint):
    seen = []

    def predict(policy, obs, generator):
        seen.append(obs["language"])
        return np.zeros((8, 7), np.float32)

    agent = Agent(load_policy(spoken_checkpoint), predict)
    for sentence in (OPEN, None):
        actions(agent, sentence)
    embedding = torch.from_numpy(HashedWords().encode([OPEN])).float()
    torch.testing.assert_close(seen[0], embedding)
    assert torch.equal(seen[1], torch.zeros(1, 384))


def test_a_reset_forgets_the_sentence_and_acting_without_is_an_error(spoken_checkpoint):
    agent = load_agent(spoken_checkpoint)
    actions(agent, OPEN)
    agent.reset(seed=0)
    with pytest.raises(UserError, match="told none"):
        agent.act(FRAME)


def test_a_policy_without_language_reads_no_sentence(checkpoint):
    agent = load_agent(checkpoint)
    assert np.array_equal(actions(agent, OPEN), actions(agent, CLOSE))


def test_another_encoder_than_the_trainings_is_refused(spoken_checkpoint):
    policy = load_policy(spoken_checkpoint)
    assert policy.language is not None
    policy.language.probe.neg_()
    with pytest.raises(UserError, match="unlike the encoder"):
        Agent(policy)
    policy.language.probe.fill_(torch.nan)
    with pytest.raises(UserError, match="does not know what embedded"):
        Agent(policy)


def experiment(checkpoint, folder, sentence, *more):
    arguments = [
        f"policy.ckpt_path={checkpoint}", f"env.instruction={sentence}", f"output_dir={folder}",
        "num_episodes=1", "max_steps=9", "videos=0", "num_workers=1", "seed=0", *more,
    ]  # fmt: skip
    run_experiment(ExperimentSettings.from_dict(compose("experiment", arguments)))
    return np.load(folder / "episodes" / "0000.npz")["robot_obs"]


def test_an_experiment_tells_its_instruction(spoken_checkpoint, tmp_path):
    first = experiment(spoken_checkpoint, tmp_path / "first", "open the drawer")
    other = experiment(spoken_checkpoint, tmp_path / "other", "pull the drawer out")
    assert np.array_equal(first[0], other[0])
    assert not np.array_equal(first, other)


def test_a_withheld_sentence_changes_nothing_and_neither_does_one_told_to_a_blank_network(
    spoken_checkpoint, tmp_path, capsys
):
    paths = []
    for name, more in (("untold", "policy.told=false"), ("blank", "policy.blank=true")):
        for number, sentence in enumerate((OPEN, "pull the drawer out")):
            folder = tmp_path / f"{name}{number}"
            paths.append(experiment(spoken_checkpoint, folder, sentence, more))
        assert np.array_equal(*paths[-2:])
        assert name == "blank" or "has no effect" in capsys.readouterr().err
    assert not np.array_equal(paths[0], paths[2])


def test_words_that_nothing_reads_are_warned_of_and_not_captioned(
    checkpoint, spoken_checkpoint, tmp_path, capsys
):
    experiment(checkpoint, tmp_path / "deaf", "hello")
    said = capsys.readouterr().err
    assert "warning: env.instruction='hello' has no effect" in said
    assert "steering=pointing" in said
    page = (tmp_path / "deaf" / "report.html").read_text()
    assert "open_drawer; the policy is told nothing" in page
    assert "hello\\u201d" not in page
    experiment(spoken_checkpoint, tmp_path / "hears", "hello")
    assert "has no effect" not in capsys.readouterr().err
    assert "hello\\u201d" in (tmp_path / "hears" / "report.html").read_text()


def test_a_caption_has_the_sentence_where_policy_or_steering_reads_it(checkpoint):
    steering = SteeringConfig(reference=1.0, samples=4, demonstrations="data/demos")
    agent = load_agent(checkpoint)
    told = "\u201copen the drawer\u201d"
    env: Any = None  # a caption needs no simulator
    deaf, steered = (Player(env, agent, how) for how in (SteeringConfig(), steering))
    assert deaf.caption("open_drawer", OPEN, "open_drawer").endswith("told nothing")
    assert steered.caption("open_drawer", OPEN, "open_drawer") == told
    assert steered.caption("open_drawer", OPEN, None).endswith("told nothing")


def test_the_benchmark_tells_the_sentence_of_each_task(run_command, spoken_checkpoint, tmp_path):
    output = run_command(
        "evaluate_calvin.py", f"policy.ckpt_path={spoken_checkpoint}", "num_chains=1",
        "max_steps=9", "output_dir=chains",
    )  # fmt: skip
    assert "average length: 0.000 of 5" in output  # it ran: without a sentence it would not


def test_calvins_own_loop_tells_its_goal(spoken_checkpoint):
    env = CalvinEnv("builtin")
    env.reset(seed=1)
    seen = env.observe(cameras=("static", "gripper"))
    model = CalvinModel(spoken_checkpoint, renderer="tiny")
    first = {}
    for goal in (OPEN, CLOSE):
        model.reset()
        first[goal] = model.step(seen, goal)
    env.close()
    assert not np.array_equal(first[OPEN], first[CLOSE])


def test_the_rival_takes_part_unsteered_with_its_own_guidance(checkpoint, spoken_checkpoint):
    base = load_policy(checkpoint)
    rival = load_rival(spoken_checkpoint, None, base)
    assert rival.language is not None
    assert rival.language.scale == 1.5
    assert rival.calls_per_step == 2
    assert load_rival(spoken_checkpoint, 1.0, base).calls_per_step == 1
    found = contenders(base, {}, [], rival)[RIVAL]
    assert found.policy is rival
    assert not found.steering.steers


def test_a_rival_without_language_or_with_other_clouds_is_refused(
    checkpoint, spoken_checkpoint, checkpoint_factory, tmp_path
):
    base = load_policy(checkpoint)
    with pytest.raises(UserError, match="follows no sentences"):
        load_rival(checkpoint, None, base)
    more = checkpoint_factory(tmp_path / "more.ckpt", ObservationPipeline(n_points=65))
    with pytest.raises(UserError, match="65"):
        load_rival(spoken_checkpoint, None, load_policy(more))
