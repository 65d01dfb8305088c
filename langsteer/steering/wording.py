"""The plain words of an instruction: colours, sides and things.

An embedding puts "left" near "right" and a bulb near an LED. The words themselves are plainly
different. So they are read as words; only the action is learnt.

Example::

    told = wording_of("slide the door leftwards")
    told.sides, told.things                     # {"left"}, {"slider"}
    told.rest                                   # "slide the door sideways"
    may_mean(told, "move_slider_left")          # True: it names a door, and no other thing
"""

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import COLOURS, TASKS
from langsteer.steering.lexical import words_of
from langsteer.steering.spelling import corrected

_COLOURED, _SIDEWAYS = "coloured", "sideways"
"""Stand for any colour and any side in the rest of a sentence."""

SIDES = ("left", "right")
_SIDE = re.compile(
    r"\b(?:(?P<turned>(?P<left_turn>(?:counter|anti)[- ]?)?clockwise)"
    r"|(?:(?P<left>left)|right)(?:wards?)?)\b"
)

# No word here comes from a held-out phrasing. So the held-out ones measure understanding, and do
# not test a list.
THINGS = {
    "block": "block blocks cube cubes object item thing toy coloured",
    "tower": "tower stack stacked unstack pile",
    "drawer": "drawer",
    "slider": "slider sliding door cabinet cupboard closet shelf panel",
    "table": "table desk counter",
    "lightbulb": "bulb yellow lever",
    "led": "led green button",
}
_SWITCH = re.compile(r"\b(?:the|light|a) switch\b")
"""The bulb's switch. "switch on" is an action on any light."""

ACTIONS = {
    "turn": "turn turned rotate rotation twist spin swing twirl wring orientation face clockwise",
    "push": "push slide slides shove move moves nudge sweep drive shift drag press poke displace "
    "propel brush",
    "lift": "lift lifted pick raise grab grasp grip take fetch collect remove extract seize carry "
    "elevate",
    "put": "put place set lay drop leave deposit insert keep release",
    "fall": "fall falls drops lands edge slide",
    "on": "on up upwards raise light lights lit shine shines activate enable",
    "off": "off down downwards lower dark darken deactivate disable extinguish out stop",
    "open": "open out outwards pull extend towards",
    "shut": "close closed closes shut in inwards back retract disappear",
    "build": "stack build make pile onto upon top another second",
    "undo": "off apart unstack separate dismantle destroy collapse down knock upper",
}
"""Actions by their words; a word may belong to several."""

_FURNITURE = "cabinet|closet|counter|cupboard|desk|table"
_ITS_DRAWER = re.compile(rf"\b(?:{_FURNITURE})(?:'s)? (?=drawer\b)")
"""The drawer's furniture: "the cupboard drawer" is about the drawer alone."""
_INTO_DRAWER = re.compile(r"\binto (?:the |an? |that )?(?:open )?drawer\b")
"""A block goes there, named or not: "push into drawer" is about a block."""

SPELLED = frozenset(
    word
    for names in (*THINGS.values(), *ACTIONS.values(), *COLOURS, *SIDES, "lightbulb lightbulbs")
    for word in names.split()
    if word != _COLOURED
)
"""The words that decide; a letter too many or too few in them is forgiven."""

_NEGATION = re.compile(r"\b(?:not|never|dont)\b|n't\b")

_ABOUT = (
    ("place_in_slider", ("slider",), ("block",)),
    ("place_in_drawer", ("drawer",), ("block",)),
    ("unstack_block", (), ("block", "tower")),
    ("stack_block", (), ("block", "tower", "table")),
    ("push_into_drawer", ("block", "drawer"), ("table",)),
    ("block_slider", ("block", "slider"), ()),
    ("block_drawer", ("block", "drawer"), ()),
    ("block", ("block",), ("table",)),
    ("slider", ("slider",), ()),
    ("drawer", ("drawer",), ("table",)),
    ("lightbulb", ("lightbulb",), ()),
    ("led", ("led",), ()),
)
"""(part of a task's name, things an instruction must name, things it may name); the first that
fits counts."""


@dataclass(frozen=True)
class Wording:
    """The plain words of an instruction.

    Attributes:
        colours: those named, of `COLOURS`.
        sides: ``left`` and ``right``, if named; clockwise is right.
        things: the parts and blocks named.
        is_negated: the instruction forbids something.
        rest: the sentence in lower case, with one word for all colours and one for all sides.
    """

    colours: frozenset[str]
    sides: frozenset[str]
    things: frozenset[str]
    is_negated: bool
    rest: str


def wording_of(instruction: str) -> Wording:
    """The plain words of an instruction."""
    text = _plainly_written(instruction)
    colours = frozenset(re.findall(rf"\b(?:{'|'.join(COLOURS)})\b", text))
    text = re.sub(rf"\b(?:{'|'.join(COLOURS)})\b", _COLOURED, text)
    sides = frozenset(
        "left" if match["left"] or match["left_turn"] else "right" for match in _SIDE.finditer(text)
    )
    rest = _SIDE.sub(lambda match: "clockwise" if match["turned"] else _SIDEWAYS, text)
    words = set(words_of(rest))
    things = {thing for thing, names in THINGS.items() if not words.isdisjoint(names.split())}
    if _SWITCH.search(rest):
        things.add("lightbulb")
    if things == {"drawer"} and _INTO_DRAWER.search(rest):
        things.add("block")
    return Wording(colours, sides, frozenset(things), _NEGATION.search(rest) is not None, rest)


def _plainly_written(instruction: str) -> str:
    """In lower case, with spelling corrected and one spelling for each thing."""
    text = re.sub(r"[_-]", " ", instruction.lower().replace("\u2019", "'"))
    text = re.sub(r"[a-z]+", lambda match: _spelled(match[0]), text)
    text = re.sub(r"\b(light ?)?bulbs?\b", lambda m: "light bulb" if m[1] else "bulb", text)
    text = re.sub(r"(?<=\bthe )draw\b|\bdraw$", "drawer", text)
    return _ITS_DRAWER.sub("", text)


def _spelled(word: str) -> str:
    return word if word in _ordinary_words() else corrected(word, SPELLED)


@functools.cache
def _ordinary_words() -> frozenset[str]:
    """Words of the phrasings to train on: "side" is a word, and no slip of "slide"."""
    said = (phrase for task in TASKS for phrase in phrasings(task))
    return frozenset(word for phrase in said for word in words_of(phrase))


def template_of(task: str) -> str:
    """A task's name, with one word for all colours and one for all sides."""
    return re.sub("left|right", _SIDEWAYS, re.sub("|".join(COLOURS), _COLOURED, task))


def may_mean(told: Wording, task: str) -> bool:
    """Whether an instruction names the task's things and no others."""
    needed, others = next((needs, may) for part, needs, may in _ABOUT if part in task)
    named = told.things & (set(needed) | set(others))
    return bool(named) and named == told.things and set(needed) <= told.things


def actions_in(sentences: Sequence[str], vocabulary: Collection[str]) -> NDArray[np.float64]:
    """One row for each sentence: its actions, of `ACTIONS`.

    Args:
        sentences: N of them, in lower case.
        vocabulary: only these words count.

    Returns:
        (N, 11) float64, rows of length 1; a row is 0 without a known action.
    """
    rows = np.zeros((len(sentences), len(ACTIONS)))
    for row, sentence in zip(rows, sentences, strict=True):
        words = set(words_of(sentence)) & set(vocabulary)
        row[:] = [not words.isdisjoint(names.split()) for names in ACTIONS.values()]
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
