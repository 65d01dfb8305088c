"""What the ranks of a training tell each other: sums, rank 0's choices, and when to stop.

Example::

    total, count = all_sum(torch.tensor([loss, 1.0])).tolist()
    folder = from_main(str(folder))
"""

import time
from collections.abc import Callable

import torch
from torch import distributed as dist

from langsteer.training.attendance import arrived
from langsteer.training.world import World

# Time between two votes of the ranks on stopping, and the most steps between them.
VOTE_SECONDS, MOST_STEPS = 0.5, 50


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of ``values`` over all ranks, on each of them; the values themselves if alone."""
    if dist.is_initialized():
        arrived()
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether any rank says yes. The CPU's group answers, so nobody waits for a GPU."""
    return bool(all_sum(torch.tensor(float(flag))))


class Vote:
    """Asks the ranks every few steps whether one of them was told to stop.

    A vote is a message around all nodes, so there are about two a second. In each one the ranks
    also agree on how many steps later the next one comes: each proposes a number from the time of
    its own steps, and the least wins. So all vote after the same step.

    Example::

        vote = Vote(world)
        if vote(stop.requested):
            raise Stopped
    """

    def __init__(self, world: World, clock: Callable[[], float] = time.monotonic) -> None:
        self._world, self._clock = world, clock
        self._every, self._steps, self._since = 1, 0, clock()

    def __call__(self, flag: bool) -> bool:
        """After each step: whether any rank says yes. Every rank hears it after the same step."""
        if not self._world.is_group:
            return flag
        self._steps += 1
        if self._steps < self._every:
            return False
        now = self._clock()
        # Ask about twice a second, in steps: time itself differs between the ranks.
        of_step = (now - self._since) / self._steps
        proposed = min(MOST_STEPS, max(1, int(VOTE_SECONDS / max(of_step, 1e-6))))
        # One maximum serves both: of the flags, and of the negated proposals for the least one.
        asked = torch.tensor([int(flag), -proposed])
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        self._every, self._steps, self._since = -int(asked[1]), 0, now
        return bool(asked[0])


def from_main(value: str) -> str:
    """Rank 0's value, on every rank."""
    values = [value]
    if dist.is_initialized():
        arrived()
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]
