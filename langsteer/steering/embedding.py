"""Sentence encoders that help to read instructions.

Example::

    reading_encoder("auto")               # MiniLM, or None without the ``[language]`` extra
"""

from langsteer.errors import UserError
from langsteer.sentences import SentenceEncoder, make_encoder, missing_packages

ENCODERS = ("auto", "minilm", "lexical")


def reading_encoder(name: str) -> SentenceEncoder | None:
    """The encoder of this name; None reads the words alone.

    Args:
        name: ``minilm``; ``lexical`` for none; ``auto`` for MiniLM if it is installed.

    Raises:
        UserError: another name, or MiniLM is asked for and not installed.
    """
    if name not in ENCODERS:
        raise UserError(f"steering.encoder={name!r}: expected one of {', '.join(ENCODERS)}")
    if name == "lexical" or (name == "auto" and missing_packages()):
        return None
    return make_encoder("minilm", "steering.encoder")
