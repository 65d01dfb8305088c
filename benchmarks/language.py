"""How well instructions are understood that the reader never saw.

    python benchmarks/language.py [--official new_playtable_validation.yaml]

For each reader: sentences placed right, refused, and placed wrong, of the held-out phrasings and,
where the file is given, of CALVIN's official validation sentences; and the time of one reading.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.tasks import TASKS
from langsteer.errors import UserError
from langsteer.steering.language import InstructionReader

Pairs = list[tuple[str, str]]


def verdict(reader: InstructionReader, sentence: str, task: str) -> str:
    """``right``, ``wrong`` or ``refused``."""
    try:
        return "right" if reader.read(sentence).task == task else "wrong"
    except UserError:
        return "refused"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="CALVIN's validation sentences (YAML)")
    arguments = parser.parse_args()
    sets: dict[str, Pairs] = {
        "held-out phrasings": [(p, task) for task in TASKS for p in phrasings(task, held_out=True)]
    }
    if arguments.official:
        official = yaml.safe_load(arguments.official.read_text())
        sets["official sentences"] = [(words[0], task) for task, words in official.items()]
    print("| reader | sentences | n | best guess right | read right | refused | read wrong | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for encoder in ("lexical", "minilm"):
        reader = InstructionReader.with_encoder(encoder)
        for name, pairs in sets.items():
            began = time.perf_counter()
            found = Counter(verdict(reader, *pair) for pair in pairs)
            taken = 1000 * (time.perf_counter() - began) / len(pairs)
            guesses = [max(s := reader.probabilities(p), key=s.__getitem__) for p, _ in pairs]
            right = sum(guess == task for guess, (_, task) in zip(guesses, pairs, strict=True))
            counts = (right, *(found[what] for what in ("right", "refused", "wrong")))
            shares = [100 * count / len(pairs) for count in counts]
            cells = " | ".join(f"{share:.0f} %" for share in shares)
            print(f"| {encoder} | {name} | {len(pairs)} | {cells} | {taken:.1f} |")


if __name__ == "__main__":
    main()
