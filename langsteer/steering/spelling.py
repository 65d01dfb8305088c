"""Close spellings of the words that decide.

Only slips that make no other word are corrected. "closer" stays what it is, and "stick" too.

Example::

    >>> corrected("drawr", {"drawer"}), corrected("slidder", {"slider"})
    ('drawer', 'slider')
    >>> corrected("closer", {"close"})
    'closer'
"""

from collections.abc import Collection

_FEWEST_EXCHANGED = 4
_FEWEST = 5
"""Fewest letters of a word with an exchange, and with other slips. Shorter words are too alike."""


def corrected(word: str, known: Collection[str]) -> str:
    """The one known word a slip away from `word`; `word` itself if there is none or several.

    A slip is a letter left out, an extra letter inside the word, or two neighbours exchanged. The
    first letter must be right. A letter in place of another is no slip: most such pairs are both
    words ("lift", "left").

    Args:
        word: in lower case.
        known: words in lower case.
    """
    if word in known:
        return word
    near = {other for other in known if len(other) >= _FEWEST_EXCHANGED and _is_slip(word, other)}
    return near.pop() if len(near) == 1 else word


def _is_slip(word: str, meant: str) -> bool:
    if not word or word[0] != meant[0]:
        return False
    if len(word) == len(meant):
        return any(
            word == meant[:i] + meant[i + 1] + meant[i] + meant[i + 2 :]
            for i in range(1, len(meant) - 1)
        )
    if len(meant) < _FEWEST:
        return False
    if len(word) == len(meant) - 1:
        return any(word == meant[:i] + meant[i + 1 :] for i in range(1, len(meant)))
    # An extra letter at the end is a form of the word, such as "closer", or another one.
    return len(word) == len(meant) + 1 and any(
        word[:i] + word[i + 1 :] == meant for i in range(1, len(word) - 1)
    )
