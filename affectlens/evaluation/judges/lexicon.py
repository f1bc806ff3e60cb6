"""The word judge: counts words that express a feeling, knows nothing else.

Unlike the encoder in every way (no training, no context), so the two rarely fail together. The
words of `affectlens.core.feelings` were written for this package and have its licence; the known
NRC lexicon is free for research only and therefore not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from affectlens.core import NEUTRAL, fingerprint
from affectlens.core.feelings import feeling_words, parse_feeling_words
from affectlens.evaluation.judges.base import GARBLED, JUDGED, Verdicts

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*\??")
_NEGATORS = frozenset(
    {"not", "no", "without", "nor", "isn't", "wasn't", "don't", "didn't", "aren't"}
)
_NEGATION_REACH = 2  # words
_LOOP_WORDS, _LOOP_SHARE = 8, 0.4  # so few different words in a text this long: a loop
_LETTER_SHARE = 0.6  # fewer letters and spaces than this: not prose


@dataclass(frozen=True)
class Lexicon:
    """Words, prefixes and phrases of each emotion.

    Attributes:
        phrases: Entry as a tuple of words -> emotion; one-word entries are tuples of one.
        prefixes: Beginning of a word -> emotion.
    """

    phrases: Mapping[tuple[str, ...], str]
    prefixes: Mapping[str, str]

    @classmethod
    def of(cls, words: Mapping[str, Sequence[str]]) -> Lexicon:
        """Of entries by emotion, as `affectlens.core.feelings` reads them."""
        phrases: dict[tuple[str, ...], str] = {}
        prefixes: dict[str, str] = {}
        for emotion, entries in words.items():
            for entry in entries:
                if entry.endswith("*") and " " not in entry:
                    prefixes[entry[:-1]] = emotion
                else:
                    phrases[tuple(entry.rstrip("*").split())] = emotion
        return cls(phrases, prefixes)

    @classmethod
    def parse(cls, text: str) -> Lexicon:
        """Of a text in the format of `affectlens.core.feelings.parse_feeling_words`.

        Raises:
            ArtefactError: If an entry stands before any ``[emotion]`` or the emotion is unknown.
        """
        return cls.of(parse_feeling_words(text)["expresses"])

    def spans(self, words: Sequence[str]) -> list[tuple[int, int, str, str]]:
        """Find all entries in lower-case words, longest first, none overlapping, negated ones too.

        Returns:
            ``(first word, number of words, entry, emotion)`` in reading order.
        """
        longest = max((len(phrase) for phrase in self.phrases), default=1)
        found: list[tuple[int, int, str, str]] = []
        start = 0
        while start < len(words):
            step = 1
            for length in range(min(longest, len(words) - start), 0, -1):
                entry, emotion = self._entry(words[start : start + length])
                if emotion:
                    found.append((start, length, entry, emotion))
                    step = length
                    break
            start += step
        return found

    def hits(self, words: Sequence[str]) -> list[tuple[str, str]]:
        """The entries of `spans` that are not negated, as pairs ``(entry, emotion)``."""
        return [
            (entry, emotion)
            for start, _, entry, emotion in self.spans(words)
            if not _NEGATORS.intersection(words[max(0, start - _NEGATION_REACH) : start])
        ]

    def _entry(self, words: Sequence[str]) -> tuple[str, str]:
        for candidate in (tuple(words), (*words[:-1], words[-1].rstrip("?"))):
            if candidate in self.phrases:
                return " ".join(candidate), self.phrases[candidate]
        if len(words) == 1:
            word = words[0].rstrip("?")
            for end in range(len(word), 2, -1):
                if word[:end] in self.prefixes:
                    return word[:end], self.prefixes[word[:end]]
        return "", ""


@lru_cache(maxsize=1)
def default_lexicon() -> Lexicon:
    """The lexicon that comes with the package."""
    return Lexicon.of(feeling_words()["expresses"])


def words_of(text: str) -> list[str]:
    """Lower-case words; a question mark stays on its word ("really?"), apostrophes are straight."""
    return [word for word, _, _ in placed_words(text)]


def placed_words(text: str) -> list[tuple[str, int, int]]:
    """The words of `words_of` and where each begins and ends, its question mark left out."""
    return [
        (found.replace("’", "'").lower(), match.start(), match.start() + len(found.rstrip("?")))
        for match in _WORD.finditer(text)
        for found in (match.group(),)
    ]


def is_loop(text: str) -> bool:
    """Whether a text repeats few words over and over, or is hardly made of letters."""
    if not text.strip():
        return True
    letters = sum(character.isalpha() or character.isspace() for character in text)
    words = words_of(text)
    looping = len(words) >= _LOOP_WORDS and len(set(words)) / len(words) < _LOOP_SHARE
    return looping or not words or letters / len(text) < _LETTER_SHARE


class LexiconJudge:
    """Emotion with the largest share of different entries; ties and none mean neutral.

    An entry counts once, so saying it ten times is worth no more; loops count as garbled.
    """

    name = "lexicon"
    labels = JUDGED

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self.lexicon = lexicon or default_lexicon()

    @property
    def fingerprint(self) -> str:
        """Hash of the words and of the rules that read them."""
        return fingerprint(
            sorted(self.lexicon.phrases.items()),
            sorted(self.lexicon.prefixes.items()),
            [sorted(_NEGATORS), _NEGATION_REACH, _LOOP_WORDS, _LOOP_SHARE, _LETTER_SHARE],
            self.labels,
        )

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge each text alone; ``probabilities`` are shares of the entries found."""
        shares = np.zeros((len(texts), len(self.labels)), dtype=np.float64)
        for row, text in enumerate(texts):
            if is_loop(text):
                shares[row, self.labels.index(GARBLED)] = 1.0
                continue
            entries = dict(self.lexicon.hits(words_of(text)))
            if not entries:
                shares[row, self.labels.index(NEUTRAL)] = 1.0
            for emotion in entries.values():
                shares[row, self.labels.index(emotion)] += 1.0 / len(entries)
        return Verdicts(self.labels, tuple(self._choose(row) for row in shares), shares)

    def _choose(self, shares: np.ndarray) -> str:
        best = np.flatnonzero(shares == shares.max())
        return self.labels[int(best[0])] if len(best) == 1 else NEUTRAL
