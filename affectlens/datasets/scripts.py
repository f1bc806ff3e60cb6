"""Words of a text, in scripts that write spaces between them and in those that do not.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and a few more run words together; there neighbouring
characters stand for words: two in scripts whose characters are words or close to it, three else.
"""

from __future__ import annotations

import re
import unicodedata
from math import ceil

_WORD = re.compile(r"[\w']+")
# Han, bopomofo, Yi: a character is a word or a syllable.
_SYLLABLES = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3100-\u312f\u31a0-\u31bf"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff"
)
# Kana, Thai, Lao, Tibetan, Burmese, Khmer, the Tai scripts, Balinese, Javanese: with their marks.
_LETTERS = (
    "\u3040-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0f00\u0f40-\u0fbc\u1000-\u1049\u1050-\u109d"
    "\u1780-\u17d3\u1950-\u19df\u1a00-\u1a7f\u1b00-\u1b4c\ua980-\ua9c0\ua9e0-\ua9ff\uaa60-\uaadf"
)
_UNSPACED = re.compile(f"[{_SYLLABLES}]+|[{_LETTERS}]+")
_SYLLABIC = re.compile(f"[{_SYLLABLES}]")
_PIECES = re.compile(rf"(?P<syllables>[{_SYLLABLES}]+)|(?P<letters>[{_LETTERS}]+)|"
                     rf"(?:(?![{_SYLLABLES}{_LETTERS}])[\w'])+")  # fmt: skip


def normalised(text: str) -> str:
    """The same text in one form: full and half width, composed and decomposed, in small letters."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def shingles(text: str) -> frozenset[str]:
    """What two texts are compared by: words, or neighbouring characters where there are none.

    Punctuation and white space do not count, inside a run of such characters either.
    """
    text = normalised(text)
    if _UNSPACED.search(text) is None:
        return frozenset(_WORD.findall(text))
    found: set[str] = set()
    run, size = "", 0
    for piece in _PIECES.finditer(text):
        n = {"syllables": 2, "letters": 3}.get(piece.lastgroup or "", 0)
        if n != size:
            found |= _grams(run, size)
            run, size = "", n
        if n:
            run += piece[0]
        else:
            found.add(piece[0])
    return frozenset(found | _grams(run, size))


def n_words(text: str) -> int:
    """Words between spaces; two syllables, or four letters, of a script without spaces are one."""
    runs = [match[0] for match in _UNSPACED.finditer(text)] if not text.isascii() else []
    if not runs:
        return len(text.split())
    others = len(_UNSPACED.sub(" ", text).split())
    return others + sum(ceil(len(run) / (2 if _SYLLABIC.match(run) else 4)) for run in runs)


def _grams(run: str, size: int) -> set[str]:
    if len(run) <= size:
        return {run} if run else set()
    return {run[i : i + size] for i in range(len(run) - size + 1)}
