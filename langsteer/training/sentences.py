"""The sentences of a store's episodes, for a policy with language.

Each distinct sentence is embedded once, at the start. An episode without one, such as play, has the
zero embedding. A withheld sentence has the same.

Example::

    sentences = EpisodeSentences(open_store(path), policy_config, "own")
    sentences.embeddings(np.array([0, 0, 3]))        # (3, 384) float32
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.data.store import Store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.sentences import SentenceEncoder, make_encoder

ENCODER_KEY = "policy.language_encoder"


class EpisodeSentences:
    """The possible sentences of each of K episodes.

    Attributes:
        encoder: of the sentences.
        texts: the sentences of each episode, its own first; an empty one if it has none.
    """

    def __init__(self, store: Store, policy: DP3Config, kind: str) -> None:
        """Embed them.

        Args:
            store: its table of episodes has the sentences and tasks.
            policy: names the encoder.
            kind: ``own`` or ``task``, see ``training.dataset.sentences``.

        Raises:
            UserError: no episode has a sentence, or the encoder is not installed or does not fit.
        """
        table = store.episodes
        if not any(table.instruction.tolist()):
            raise UserError(
                f"{store.path}: policy.language=true, but none of its {len(table)} episodes has an "
                "instruction; convert the dataset with --episodes language or --episodes labelled"
            )
        self.encoder = make_encoder(policy.language_encoder, ENCODER_KEY)
        self.texts = [
            _options(task, own, kind)
            for task, own in zip(table.task.tolist(), table.instruction.tolist(), strict=True)
        ]
        distinct = sorted({text for texts in self.texts for text in texts})
        self._rows = _embedded(self.encoder, distinct, policy.language_dim)
        place = {text: row for row, text in enumerate(distinct)}
        self._options = np.array([place[text] for texts in self.texts for text in texts])
        self._counts = np.array([len(texts) for texts in self.texts])
        self._first = np.array([0, *accumulate(self._counts[:-1])])

    def embeddings(
        self, episodes: NDArray[np.int64], draws: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """(B, E) for episodes (B,): their own sentences, or those chosen by ``draws``.

        Args:
            episodes: indices of the store.
            draws: (B,) within [0, 1), each a place among an episode's sentences.
        """
        chosen = self._first[episodes]
        if draws is not None:
            chosen = chosen + (draws * self._counts[episodes]).astype(np.int64)
        return self._rows[self._options[chosen]]

    def describe(self, episodes: NDArray[np.int64]) -> str:
        """Number of these episodes with a sentence, and of different sentences."""
        spoken = [self.texts[episode] for episode in episodes if self.texts[episode][0]]
        distinct = len({text for texts in spoken for text in texts})
        return f"{len(spoken)} of {len(episodes)} training episodes with {distinct} sentences"


def _options(task: str, own: str, kind: str) -> list[str]:
    if kind == "own" or not own or task not in TASKS:
        return [own]
    return [own, *(words for words in phrasings(task) if words != own)]


def _embedded(
    encoder: SentenceEncoder, sentences: Sequence[str], width: int
) -> NDArray[np.float32]:
    """(N, ``width``) float32, zero for the empty sentence."""
    rows = encoder.encode(sentences).astype(np.float32)
    if rows.shape[1] != width:
        raise UserError(
            f"policy.language_dim={width}: the encoder's embeddings have {rows.shape[1]}"
        )
    rows[[not sentence for sentence in sentences]] = 0.0
    return rows
