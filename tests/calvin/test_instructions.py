"""Words for tasks: complete, distinct, and held-out ones apart."""

import re
from collections import Counter

import pytest

from benchmarks.language import frozen_sentences
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.errors import UserError
from langsteer.steering.lexical import words_of
from langsteer.steering.wording import ACTIONS, THINGS, wording_of


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


def test_no_sentence_to_measure_with_is_a_phrasing_to_train_on():
    frozen = frozen_sentences()
    trained = {_plain(phrase) for task in TASKS for phrase in phrasings(task)}
    measured = [sentence for pairs in frozen.values() for sentence, _ in pairs]
    held_out = [phrase for task in TASKS for phrase in phrasings(task, held_out=True)]
    assert not trained & {_plain(text) for text in [*measured, *held_out]}
    counts = Counter(task for _, task in frozen["frozen sentences"])
    assert set(counts) == set(TASKS)
    assert min(counts.values()) >= 5


def test_words_that_are_read_as_words_come_from_phrasings_to_train_on():
    known = {words for task in TASKS for phrase in phrasings(task) for words in _told(phrase)}
    written_in = {word for names in (*THINGS.values(), *ACTIONS.values()) for word in names.split()}
    assert written_in <= known


def _told(phrase: str) -> list[str]:
    return words_of(wording_of(phrase).rest)


def _plain(sentence: str) -> str:
    """Its words alone: neither capitals nor commas make a sentence another one."""
    return " ".join(re.findall(r"\w+", sentence.lower()))
