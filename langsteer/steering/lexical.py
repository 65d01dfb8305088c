"""Features of a sentence without a model: words, pairs of words and their letters.

They complement `langsteer.steering.language`, and stand in for it. An embedding puts "open the
drawer" near "close the drawer". The words themselves are plainly different.

Example::

    features = LexicalFeatures(["open the drawer", "close the drawer"])
    features.encode(["shut the drawer"])        # (1, D) float64, rows of unit length
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LETTERS = (3, 4, 5)
_LETTERS_WEIGHT = 0.5
"""Letters stand in for unseen forms of a word: "rightwards", "closing"."""


def words_of(sentence: str) -> list[str]:
    """The words of a sentence in lower case, without a genitive's s."""
    return re.findall(r"[a-z]+", sentence.lower().replace("'s", ""))


def _terms(sentence: str) -> Counter[str]:
    """How often each word, pair of neighbours and run of letters stands in a sentence."""
    words = words_of(sentence)
    found = Counter(words)
    found.update(" ".join(pair) for pair in itertools.pairwise(words))
    for word in (f"<{word}>" for word in words):
        for size in _LETTERS:
            found.update(f"#{word[i : i + size]}" for i in range(len(word) - size + 1))
    return found


class LexicalFeatures:
    """TF-IDF of words, word pairs and letter n-grams (Salton & Buckley 1988), by known sentences.

    A term's weight is (1 + ln tf) * idf with idf = ln((1 + n) / (1 + df)) + 1; rows have length 1.
    """

    def __init__(self, known: Sequence[str]) -> None:
        counts = [_terms(sentence) for sentence in known]
        documents = Counter(term for terms in counts for term in terms)
        self._column = {term: index for index, term in enumerate(sorted(documents))}
        idf = [np.log((1 + len(known)) / (1 + documents[term])) + 1 for term in self._column]
        is_letters = [term.startswith("#") for term in self._column]
        self._weight = np.array(idf) * np.where(is_letters, _LETTERS_WEIGHT, 1.0)

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, D) float64, rows of length 1; a row is 0 if no term is known."""
        rows = np.zeros((len(sentences), len(self._column)))
        for row, sentence in zip(rows, sentences, strict=True):
            for term, count in _terms(sentence).items():
                if term in self._column:
                    row[self._column[term]] = 1 + np.log(count)
        rows *= self._weight
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.maximum(lengths, 1e-12)
