"""Ranks vote after the same steps, and a single process asks nobody."""

from functools import partial

import torch
from torch import distributed as dist

from langsteer.training.consensus import Vote
from langsteer.training.world import World


class Ranks:
    """Ranks that vote one after the other on each step, by a common clock."""

    def __init__(self, monkeypatch, seconds_per_step):
        self.now, self.seconds, self.ballots = 0.0, seconds_per_step, []
        self.rounds = 0
        monkeypatch.setattr(dist, "all_reduce", self._all_reduce)
        worlds = [World(rank, 0, len(seconds_per_step), "slurm") for rank in (0, 1)]
        self.clocks = [0.0 for _ in seconds_per_step]
        self.votes = [Vote(world, partial(self._time, rank)) for rank, world in enumerate(worlds)]

    def _time(self, rank):
        return self.clocks[rank]

    def _all_reduce(self, ballot, operation):
        assert operation == dist.ReduceOp.MAX
        self.ballots.append(ballot.clone())
        if self.other is not None:
            ballot.copy_(torch.maximum(ballot, self.other))

    def step(self, flags):
        """One step of both, and whether each was told to stop."""
        for rank, seconds in enumerate(self.seconds):
            self.clocks[rank] += seconds
        self.ballots, answers = [], []
        # What rank 1 will say is not known when rank 0 asks: ask both without each other first.
        states = [dict(vote.__dict__) for vote in self.votes]
        self.other = None
        for vote, flag in zip(self.votes, flags, strict=True):
            vote(flag)
        assert len(self.ballots) in (0, 2), "the ranks asked after different steps"
        if self.ballots:
            self.rounds += 1
            self.other = torch.maximum(*self.ballots)
        for vote, flag, state in zip(self.votes, flags, states, strict=True):
            vote.__dict__.update(state)
            answers.append(vote(flag))
        return answers


def test_ranks_ask_each_other_twice_a_second_and_after_the_same_steps(monkeypatch):
    ranks = Ranks(monkeypatch, [0.02, 0.05])
    for _ in range(101):
        assert ranks.step([False, False]) == [False, False]
    assert ranks.rounds == 11  # after the first step, and then after every ten
    answers = [ranks.step([False, True]) for _ in range(10)]
    assert [True, True] in answers
    assert all(one == other for one, other in answers)


def test_single_process_obeys_after_the_very_step():
    assert Vote(World())(True)
