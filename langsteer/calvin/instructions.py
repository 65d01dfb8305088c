"""Phrasings of each task, as a person may say it to the robot.

Every task has several phrasings to train on. Some more are held out, to test whether unseen words
are understood. They are in ``phrasings.yaml`` beside this file.

Example::

    >>> phrasings("open_drawer")[0]
    'open the drawer'
    >>> phrasings("lift_red_block_table", held_out=True)[0]
    'get the red cube off the table and into the air'
"""

import functools
import itertools
from pathlib import Path

import yaml

from langsteer.calvin.task import COLOURS, checked_task

_FILE = Path(__file__).with_name("phrasings.yaml")
_SIDES = {"left": {"side": "left", "counter": "counter"}, "right": {"side": "right", "counter": ""}}
_Phrasings = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""Task: (to train on, held out)."""


@functools.cache
def _for_all_tasks() -> _Phrasings:
    found: _Phrasings = {}
    templates = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    for (name, groups), colour, side in itertools.product(templates.items(), COLOURS, _SIDES):
        words = {"colour": colour, **_SIDES[side]}
        held_out = groups["held_out"]
        if isinstance(held_out, dict):
            held_out = held_out[side]
        task = name.format(**words)
        known = found.get(task, ((), ()))
        found[task] = (_told(groups["train"], words, known[0]), _told(held_out, words, known[1]))
    return found


def _told(templates: list[str], words: dict[str, str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The known phrasings and then the new ones, in order and without repetitions."""
    return tuple(dict.fromkeys([*known, *(text.format(**words) for text in templates)]))


def phrasings(task: str, held_out: bool = False) -> tuple[str, ...]:
    """All phrasings of one of the 34 tasks: those to train on, or those held out.

    Raises:
        UserError: no task has this name.
    """
    return _for_all_tasks()[checked_task(task)][int(held_out)]


def task_of(sentence: str) -> str | None:
    """The task with this phrasing, or None; the letters' case does not count."""
    return _by_phrasing().get(sentence.strip().rstrip(".").lower())


@functools.cache
def _by_phrasing() -> dict[str, str]:
    """Phrasing in small letters to its task, of those that mean one task alone."""
    tasks: dict[str, set[str]] = {}
    for task, groups in _for_all_tasks().items():
        for words in itertools.chain(*groups):
            tasks.setdefault(words.lower(), set()).add(task)
    return {words: task for words, (task, *others) in tasks.items() if not others}
