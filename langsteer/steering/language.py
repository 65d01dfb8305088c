"""From an instruction in free words to one of CALVIN's tasks, with a confidence.

Example::

    reader = InstructionReader.with_encoder("auto")
    reader.read("please pull the drawer open")     # Reading(task="open_drawer", confidence=0.97)
    reader.read("make me a coffee")                # UserError that names the nearest tasks

Two readings must agree. `langsteer.steering.wording` reads the words that decide: colours, sides
and things. The things must be those of the task. The action is learnt from the known phrasings, by
kernel ridge regression on a code of the task. The code holds the task's template and the parts of
its name: bulb and LED share their "on". The features are the sentence's words and letters, its
words for actions and, with the ``[language]`` extra, its MiniLM embedding.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import COLOURS, TASKS, checked_task
from langsteer.errors import UserError
from langsteer.sentences import SentenceEncoder
from langsteer.steering.embedding import reading_encoder
from langsteer.steering.lexical import LexicalFeatures, words_of
from langsteer.steering.wording import SIDES, Wording, actions_in, may_mean, template_of, wording_of

_PARTS = (
    *("open", "close", "turn_on", "turn_off", "lightbulb", "led", "slider", "drawer", "table"),
    *("rotate", "push", "lift", "place", "stack", "unstack", "move", "turn_o"),
)
_TEMPLATES = {template_of(task): task for task in TASKS}
"""Names of tasks without colour and side, with one task of each."""
_CODES = np.array(
    [
        [float(name == other) for other in _TEMPLATES] + [float(part in name) for part in _PARTS]
        for name in _TEMPLATES
    ]
)

# Found by leaving out each phrasing in turn, of those to train on (docs/steering.md).
_RIDGE = 0.2
_TEMPERATURE = 0.35
_LEAST_NEARNESS = {"lexical": 0.4, "embedded": 0.5}
"""Cosine to the nearest known phrasing, by kind of reader."""
LEAST_CONFIDENCE = 0.8


@dataclass(frozen=True)
class Reading:
    """The meaning of an instruction: one of the 34 tasks, with a confidence in 0..1."""

    task: str
    confidence: float


Reader = Callable[[str], Reading]
"""Any reader of instructions, e.g. around a large language model; see `make_reader`."""


class InstructionReader:
    """Finds the task of an instruction by known phrasings; see the module."""

    def __init__(
        self,
        encoder: SentenceEncoder | None = None,
        known: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Learn phrasings.

        Args:
            encoder: of sentences; None looks at words alone.
            known: (phrasing, task) to learn. None learns all phrasings to train on and the names of
                the tasks.
        """
        self._encoder = encoder
        if known is None:
            said = [(phrase, task) for task in TASKS for phrase in phrasings(task)]
            known = [*said, *((task.replace("_", " "), task) for task in TASKS)]
        meaning = {wording_of(phrase).rest: template_of(task) for phrase, task in known}
        names = list(_TEMPLATES)
        self._vocabulary = set().union(*map(words_of, meaning))
        self._lexical = LexicalFeatures(list(meaning))
        self._known = self._features(list(meaning))
        # Kernel ridge regression in closed form: some 700 phrasings take milliseconds.
        gram = self._known @ self._known.T + _RIDGE * np.eye(len(meaning))
        targets = _CODES[[names.index(name) for name in meaning.values()]]
        self._weights = self._known.T @ np.linalg.solve(gram, targets)

    @classmethod
    def with_encoder(cls, name: str) -> "InstructionReader":
        """A reader by the name of its encoder: ``auto``, ``minilm`` or ``lexical``."""
        return cls(reading_encoder(name))

    def _features(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, D) rows of length 1 at most, of sentences without colours and sides."""
        parts = [self._lexical.encode(sentences), actions_in(sentences, self._vocabulary)]
        if self._encoder is not None:
            parts.append(self._encoder.encode(sentences))
        return np.hstack(parts) / np.sqrt(len(parts))

    def _shares(self, told: Wording, features: NDArray[np.float64]) -> dict[str, float]:
        """Each task's share; they add up to 1.

        A task of another colour, side or thing than those named has 0. If no task fits the things
        named, the shares only rank the nearest.
        """
        fits = np.array([may_mean(told, task) for task in _TEMPLATES.values()])
        distances = np.square(features @ self._weights - _CODES).sum(axis=1)
        # Words that decide rule tasks out; what remains is ranked by the action.
        if fits.any():
            distances[~fits] = np.inf
        shares = np.exp((distances.min() - distances) / _TEMPERATURE)
        of_template = dict(zip(_TEMPLATES, shares / shares.sum(), strict=True))
        return {
            task: float(of_template[template_of(task)])
            * _part(task, told.colours, COLOURS)
            * _part(task, told.sides, SIDES)
            for task in TASKS
        }

    def read(self, instruction: str) -> Reading:
        """The task of an instruction.

        Raises:
            UserError: the instruction is unclear; the message names the nearest tasks.
        """
        told = wording_of(instruction)
        features = self._features([told.rest])[0]
        shares = self._shares(told, features)
        nearest = sorted(shares, key=lambda task: -shares[task])[:3]
        task, confidence = nearest[0], shares[nearest[0]]
        least = _LEAST_NEARNESS["lexical" if self._encoder is None else "embedded"]
        is_like = (self._known @ features).max() >= least
        is_sure = confidence >= LEAST_CONFIDENCE and may_mean(told, task)
        if is_sure and is_like and not told.is_negated:
            return Reading(task, confidence)
        listed = ", ".join(f"{name} ({shares[name]:.0%})" for name in nearest)
        what = "not clear which task this means" if is_like else "not like any known instruction"
        if told.is_negated:
            what = "it says what not to do"
        raise UserError(
            f"instruction {instruction!r}: {what}; nearest are {listed}. Say it in other words, "
            f"such as {phrasings(task)[0]!r}"
        )

    __call__ = read


def _part(task: str, named: frozenset[str], values: Sequence[str]) -> float:
    """A task's share among tasks that differ in its colour alone or its side alone."""
    own = next((value for value in values if f"_{value}" in task), None)
    among = named or frozenset(values)
    return 1.0 if own is None else (own in among) / len(among)


def make_reader(encoder: str = "auto", plugin: str | None = None) -> Reader:
    """Make the reader that a configuration names.

    Args:
        encoder: of `InstructionReader`: ``auto``, ``minilm`` or ``lexical``.
        plugin: ``"package.module:function"`` of your own, e.g. around a language model. It
            receives the instruction and the names of all tasks, and returns a task and a
            confidence.

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
        try:
            task, confidence = function(instruction, TASKS)
            confidence = float(confidence)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"steering.plugin={plugin!r}: {error}; it takes an instruction and the names of "
                "all tasks, and returns a task and a confidence from 0 to 1"
            ) from error
        if not confidence >= LEAST_CONFIDENCE:
            raise UserError(
                f"instruction {instruction!r}: {plugin} is not sure (nearest is {task}, "
                f"{confidence:.0%}); say it in other words"
            )
        return Reading(checked_task(task), confidence)

    return read
