"""From an instruction in free words to one of CALVIN's tasks, with a confidence.

Example::

    reader = InstructionReader.with_encoder("auto")
    reader.read("please pull the drawer open")     # Reading(task="open_drawer", confidence=0.97)
    reader.read("make me a coffee")                # UserError that names the nearest tasks

Colours are read as words. The rest of a sentence is compared with the known phrasings of all tasks
by kernel ridge regression on the code of a task (what is done, to which part, in which direction),
so that what "left" means is learnt from doors and blocks alike. The features are the sentence's
words and letters and, with the ``[language]`` extra, its MiniLM embedding.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import COLOURS, TASKS, checked_task
from langsteer.errors import UserError
from langsteer.sentences import SentenceEncoder
from langsteer.steering.blocks import colour_of
from langsteer.steering.embedding import reading_encoder
from langsteer.steering.lexical import LexicalFeatures, words_of

_COLOUR = "coloured"
"""Stands for every colour, in sentences and in the names of tasks."""

_PARTS = (
    ("left", "right"),
    ("open", "close"),
    ("turn_on", "turn_off"),
    ("lightbulb", "led"),
    ("slider", "drawer", "table"),
    ("rotate", "push", "lift", "place", "stack", "unstack", "move", "turn_o"),
)

# All found by leaving out each phrasing in turn of those to train on (docs/steering.md).
_RIDGE = 0.3
_TEMPERATURE = {"lexical": 0.4, "embedded": 0.35}
_LEAST_NEARNESS = {"lexical": 0.35, "embedded": 0.45}
LEAST_CONFIDENCE = 0.8


@dataclass(frozen=True)
class Reading:
    """What an instruction means: one of the 34 tasks, and how sure that is, within 0 and 1."""

    task: str
    confidence: float


Reader = Callable[[str], Reading]
"""Any reader of instructions, e.g. around a large language model; see `make_reader`."""


class InstructionReader:
    """Places instructions among the tasks by the phrasings known of each; see the module."""

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        """Learn the phrasings to train on of all tasks; ``encoder`` None looks at words alone."""
        self._encoder = encoder
        self._kind = "lexical" if encoder is None else "embedded"
        self._templates = sorted({_without_colour(task) for task in TASKS})
        parts = [part for group in _PARTS for part in group]
        self._codes = np.array(
            [
                [float(name == other) for other in self._templates]
                + [float(part in name) for part in parts]
                for name in self._templates
            ]
        )
        meaning = {
            _without_colour(phrase): self._templates.index(_without_colour(task))
            for task in TASKS
            for phrase in phrasings(task)
        }
        known, targets = list(meaning), self._codes[list(meaning.values())]
        self._lexical = LexicalFeatures(known)
        self._known = self._features(known)
        gram = self._known @ self._known.T
        self._solution = np.linalg.solve(gram + _RIDGE * np.eye(len(gram)), targets)

    @classmethod
    def with_encoder(cls, name: str) -> "InstructionReader":
        """A reader by the name of its encoder: ``auto``, ``minilm`` or ``lexical``."""
        return cls(reading_encoder(name))

    def _features(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, D) rows of length 1 at most; sentences have no colours any more."""
        rows = self._lexical.encode(sentences)
        if self._encoder is None:
            return rows
        return np.hstack([rows, self._encoder.encode(sentences)]) / np.sqrt(2)

    def probabilities(self, instruction: str) -> dict[str, float]:
        """Each task's share; they add up to 1. A task of another colour than the named has 0."""
        features = self._features([_without_colour(instruction)])
        code = features @ self._known.T @ self._solution
        distances = np.square(code - self._codes).sum(axis=1)
        shares = np.exp((distances.min() - distances) / _TEMPERATURE[self._kind])
        shares /= shares.sum()
        of_template = dict(zip(self._templates, shares, strict=True))
        colours = set(words_of(instruction)) & set(COLOURS) or set(COLOURS)
        found = {}
        for task in TASKS:
            colour = colour_of(task)
            among = 1 if colour is None else len(colours)
            is_meant = colour is None or colour in colours
            found[task] = float(of_template[_without_colour(task)] / among) if is_meant else 0.0
        return found

    def nearness(self, instruction: str) -> float:
        """Cosine to the nearest known phrasing: whether this speaks of such tasks at all."""
        return float((self._features([_without_colour(instruction)]) @ self._known.T).max())

    def read(self, instruction: str) -> Reading:
        """The task that is meant.

        Raises:
            UserError: where that is not clear; the message names the nearest tasks.
        """
        shares = self.probabilities(instruction)
        nearest = sorted(shares, key=lambda task: -shares[task])[:3]
        task, confidence = nearest[0], shares[nearest[0]]
        is_near = self.nearness(instruction) >= _LEAST_NEARNESS[self._kind]
        if confidence >= LEAST_CONFIDENCE and is_near:
            return Reading(task, confidence)
        listed = ", ".join(f"{name} ({shares[name]:.0%})" for name in nearest)
        what = "not clear which task this means" if is_near else "not like any known instruction"
        raise UserError(
            f"instruction {instruction!r}: {what}; nearest are {listed}. Say it in other words, "
            f"such as {phrasings(task)[0]!r}"
        )

    __call__ = read


def _without_colour(text: str) -> str:
    """A sentence or a task's name with one word for all colours, in lower case."""
    return re.sub(rf"(?<![a-z])({'|'.join(COLOURS)})(?![a-z])", _COLOUR, text.lower())


def make_reader(encoder: str = "auto", plugin: str | None = None) -> Reader:
    """The reader that a configuration asks for.

    Args:
        encoder: of `InstructionReader`: ``auto``, ``minilm`` or ``lexical``.
        plugin: ``"package.module:function"`` of your own, e.g. around a language model. It is given
            the instruction and the names of all tasks, and returns a task and a confidence.

    Raises:
        UserError: no such encoder or function.
    """
    if plugin is None:
        return InstructionReader.with_encoder(encoder)
    module, _, name = plugin.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"steering.plugin={plugin!r}: {error}; expected 'package.module:function'"
        ) from error

    def read(instruction: str) -> Reading:
        task, confidence = function(instruction, TASKS)
        if not confidence >= LEAST_CONFIDENCE:
            raise UserError(
                f"instruction {instruction!r}: {plugin} is not sure (nearest is {task}, "
                f"{confidence:.0%}); say it in other words"
            )
        return Reading(checked_task(task), float(confidence))

    return read
