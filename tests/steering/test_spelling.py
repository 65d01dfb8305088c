"""Slips are corrected; other words, and the words that decide, stay what they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.language import frozen_sentences
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.steering.lexical import words_of
from langsteer.steering.spelling import corrected
from langsteer.steering.wording import ACTIONS, SPELLED, THINGS, wording_of


@pytest.mark.parametrize("word", ["closer", "stick", "light", "draw", "tower", "closely", "lit"])
def test_other_words_are_left_alone(word):
    assert corrected(word, SPELLED) == word


def test_known_sentences_are_left_as_they_are():
    for task in TASKS:
        for phrase in phrasings(task):
            # "lightbulb" and the drawer's furniture are all that is written otherwise.
            rest = wording_of(phrase).rest
            assert len(words_of(rest)) >= len(words_of(phrase)) - 1
            assert "side" not in words_of(phrase) or "side" in words_of(rest)


def test_the_frozen_sentences_have_no_slip_and_get_none():
    said = [sentence for pairs in frozen_sentences().values() for sentence, _ in pairs]
    for sentence in said:
        rest, own = set(words_of(wording_of(sentence).rest)), set(words_of(sentence))
        assert rest - own <= {"coloured", "sideways", "clockwise", "towards", "light"}


def test_the_words_that_decide_stand_for_themselves():
    for names in (*THINGS.values(), *ACTIONS.values()):
        for word in set(names.split()) - {"coloured"}:
            assert corrected(word, SPELLED) == word


@given(word=st.text("abcdefghijklmnopqrstuvwxyz", max_size=9))
def test_a_correction_is_a_known_word_of_the_same_beginning(word):
    found = corrected(word, SPELLED)
    assert found == word or (found in SPELLED and found[0] == word[0])
