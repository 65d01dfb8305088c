"""All skills by the name of their task.

Example::

    skill = make_skill("open_drawer", hand, rng)
"""

from collections.abc import Sequence

import numpy as np

from langsteer.calvin.task import checked_task
from langsteer.errors import UserError
from langsteer.experts import articulated, blocks, pushing
from langsteer.experts.motion import Hand
from langsteer.experts.skill import Planner, Skill

PLANNERS: dict[str, Planner] = {
    **articulated.PLANNERS,
    **blocks.PLANNERS,
    **pushing.PLANNERS,
}

SKILLED_TASKS: tuple[str, ...] = tuple(PLANNERS)
"""The tasks with an expert."""


def checked_skills(tasks: Sequence[str]) -> None:
    """Check that each of the tasks has an expert.

    Raises:
        UserError: no task is given, one is unknown, or one has no expert.
    """
    if not tasks:
        raise UserError(f"no tasks given; there are {', '.join(SKILLED_TASKS)}")
    for task in tasks:
        if checked_task(task) not in PLANNERS:
            raise UserError(f"no expert for {task!r}; there are {', '.join(SKILLED_TASKS)}")


def make_skill(task: str, hand: Hand, rng: np.random.Generator) -> Skill:
    """The skill for a task.

    Raises:
        UserError: no such task, or it has no expert.
    """
    checked_skills([task])
    return Skill(task, PLANNERS[task], hand, rng)
