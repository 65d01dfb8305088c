"""How well instructions are understood that the reader never saw.

    python benchmarks/language.py [--official new_playtable_validation.yaml] [--leave_one_out]

For each reader: sentences read right, refused and read wrong, and the time of one reading, of
the frozen sentences of ``instructions.yaml`` beside this file, those of it that are to be refused
(every reading of one is wrong), the held-out phrasings and, where the file is given, CALVIN's
official validation sentences. ``--leave_one_out`` measures on the phrasings to train on instead,
each read by a reader that never saw it in any colour or side: the reader's constants are chosen so.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import COLOURS, TASKS
from langsteer.errors import UserError, exits_cleanly
from langsteer.sentences import SentenceEncoder, make_encoder
from langsteer.steering.language import InstructionReader
from langsteer.steering.wording import wording_of

FROZEN = Path(__file__).with_name("instructions.yaml")
Pairs = list[tuple[str, str | None]]
"""Sentences and the tasks that they mean; None for no task."""


def frozen_sentences() -> dict[str, Pairs]:
    """The sentences with a task, in each colour and without double ones, and those without."""
    found = yaml.safe_load(FROZEN.read_text())
    meant = [
        (sentence.format(colour=colour), name.format(colour=colour))
        for name, sentences in found["meant"].items()
        for sentence in sentences
        for colour in COLOURS
    ]
    refused = [(sentence, None) for sentence in found["refused"]]
    return {"frozen sentences": list(dict.fromkeys(meant)), "to be refused": refused}


def verdict(reader: InstructionReader, sentence: str, task: str | None) -> str:
    """``right``, ``wrong`` or ``refused``."""
    try:
        return "right" if reader.read(sentence).task == task else "wrong"
    except UserError:
        return "refused"


class Remembered:
    """An encoder that encodes no sentence twice."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float64]] = {}

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, 384) float64, rows of unit length."""
        new = [sentence for sentence in sentences if sentence not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.array([self._known[sentence] for sentence in sentences])


def leave_one_out() -> None:
    """Print how phrasings are read that were left out."""
    pairs = [(phrase, task) for task in TASKS for phrase in phrasings(task)]
    groups: dict[str, Pairs] = {}
    for phrase, task in pairs:
        groups.setdefault(wording_of(phrase).rest, []).append((phrase, task))
    for encoder in (None, Remembered(make_encoder("minilm"))):
        found: Counter[str] = Counter()
        for rest, group in groups.items():
            reader = InstructionReader(encoder, [p for p in pairs if wording_of(p[0]).rest != rest])
            found.update(verdict(reader, *pair) for pair in group)
        shares = {what: f"{count / len(pairs):.1%}" for what, count in found.items()}
        print("lexical" if encoder is None else "minilm", len(pairs), shares)


@exits_cleanly
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="CALVIN's validation sentences (YAML)")
    parser.add_argument("--leave_one_out", action="store_true", help="on phrasings to train on")
    arguments = parser.parse_args()
    if arguments.leave_one_out:
        leave_one_out()
        return
    sets = frozen_sentences()
    sets["held-out phrasings"] = [
        (p, task) for task in TASKS for p in phrasings(task, held_out=True)
    ]
    if arguments.official:
        if not arguments.official.is_file():
            raise UserError(f"{arguments.official}: no such file")
        official = yaml.safe_load(arguments.official.read_text())
        sets["official sentences"] = [(words[0], task) for task, words in official.items()]
    print("| reader | sentences | n | read right | refused | read wrong | ms |")
    print("|---|---|---|---|---|---|---|")
    for encoder in ("lexical", "minilm"):
        reader = InstructionReader.with_encoder(encoder)
        for name, pairs in sets.items():
            began = time.perf_counter()
            found = Counter(verdict(reader, *pair) for pair in pairs)
            taken = 1000 * (time.perf_counter() - began) / len(pairs)
            shares = [100 * found[what] / len(pairs) for what in ("right", "refused", "wrong")]
            cells = " | ".join(f"{share:.1f} %" for share in shares)
            print(f"| {encoder} | {name} | {len(pairs)} | {cells} | {taken:.1f} |")


if __name__ == "__main__":
    main()
