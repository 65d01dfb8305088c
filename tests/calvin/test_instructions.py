"""Words for tasks: complete, distinct, and held-out ones apart."""

import pytest

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import TASKS
from langsteer.errors import UserError


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_phrasings_to_train_on_and_held_out(task):
    assert len(phrasings(task)) >= 8
    assert len(phrasings(task, held_out=True)) >= 2


def test_no_phrasing_means_two_tasks_or_is_both_seen_and_held_out():
    everything = [
        phrase
        for task in TASKS
        for held_out in (False, True)
        for phrase in phrasings(task, held_out)
    ]
    assert len(everything) == len(set(everything))


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="push_into_drawer"):
        phrasings("push_in_drawer")
