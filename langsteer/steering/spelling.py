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
"""Letters of a word to be found by an exchange, and by others: shorter ones are near too many."""


def corrected(word: str, known: Collection[str]) -> str:
    """The known word that a slip away from `word`, or `word` where there is none or several.

    A slip is a letter left out, an extra letter inside the word, or two neighbours exchanged. The
    first letter has to be right. A letter in place of another is no slip, since most pairs of
    words like that are both words ("lift", "left").

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
