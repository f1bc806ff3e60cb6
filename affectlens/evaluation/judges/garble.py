"""Corruptions: what text looks like when a model was steered too hard, made from good text.

A judge that was trained on good text alone finds anger in ``angry angry angry``; steering would
then look best where it destroys the language. These corruptions teach a judge to refuse, and test
it. Everything is seeded: equal arguments give equal texts.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from affectlens.core.errors import unknown

_FEELING = tuple(
    word
    for words in (
        "angry furious rage mad hate disgusting gross sick vile fear scared afraid terrified dread",
        "happy joy glad love smile sad cry tears lonely grief surprised wow shocked amazing",
        "suddenly unexpected calm okay",
    )
    for word in words.split()
)
_CHAINS = ("-", "–", "—", "_", ".", "*", "!", "?", "...", "#", "/", "~", "=", "|", ":", '"', "'")
_MAX_WORDS = 40


@dataclass(frozen=True)
class _Draft:
    """What a corruption works with.

    Attributes:
        words: Of the text to corrupt; at least one.
        rng: Source of all randomness.
        texts: Good texts to draw other words from.
        pieces: Pieces of words, for example a tokenizer's vocabulary.
    """

    words: Sequence[str]
    rng: random.Random
    texts: Sequence[str]
    pieces: Sequence[str]

    def other_word(self) -> str:
        """A word of some text."""
        return self.rng.choice(self.rng.choice(self.texts).split())

    def loop(self, phrase: Sequence[str], most: int, joint: str = " ") -> str:
        """A phrase at least four times over, as far as ``most`` words allow."""
        least = min(most, max(8, 4 * len(phrase)))
        return joint.join((list(phrase) * most)[: self.rng.randint(least, most)])


def _bare(word: str) -> str:
    return word.strip(".,!?;:\"'") or "the"


def _shuffled(draft: _Draft) -> str:
    """The same words in random order (short texts are first joined with others)."""
    rng, words = draft.rng, list(draft.words)
    while len(words) < 8:
        words += rng.choice(draft.texts).split()
    words = words[:_MAX_WORDS]
    rng.shuffle(words)
    return " ".join(map(_bare, words) if rng.random() < 0.5 else words)


def _repeated_word(draft: _Draft) -> str:
    """``angry angry angry``."""
    rng = draft.rng
    word = rng.choice([_bare(rng.choice(draft.words)).lower(), rng.choice(_FEELING)])
    joint = rng.choice([" ", " ", ", ", " - ", "-", "! ", ". ", "... "])
    return joint.join([word] * rng.randint(4, 30))


def _looped_phrase(draft: _Draft) -> str:
    """A phrase of the text over and over."""
    rng, words = draft.rng, draft.words
    if rng.random() < 0.5:
        words = [rng.choice(_FEELING), *words]
    size = rng.randint(2, 6)
    start = rng.randrange(max(1, len(words) - size))
    return draft.loop(words[start : start + size], _MAX_WORDS)


def _fluent_then_loop(draft: _Draft) -> str:
    """A good beginning that falls into a loop."""
    rng, words = draft.rng, draft.words
    kept = rng.randint(2, 10)
    phrase = rng.choice(
        [
            words[max(0, kept - rng.randint(1, 4)) : kept] or words[:1],
            [rng.choice(_FEELING)],
            rng.sample(_FEELING, 2),
            ["the"],
            [rng.choice(words)],
        ]
    )
    return " ".join(words[:kept]) + " " + draft.loop(phrase, 30)


def _letters(draft: _Draft) -> str:
    """Letters shuffled within words, or random characters."""
    rng = draft.rng
    if rng.random() < 0.5:
        return " ".join("".join(rng.sample(word, len(word))) for word in draft.words[:30])
    alphabet = rng.choice(
        [
            string.ascii_lowercase,
            string.ascii_letters + string.digits + string.punctuation,
            string.punctuation + " ",
        ]
    )
    return " ".join(
        "".join(rng.choices(alphabet, k=rng.randint(1, 9))) for _ in range(rng.randint(10, 40))
    )


def _capitals(draft: _Draft) -> str:
    """A loop in capitals, bare or after a few good words."""
    rng, words = draft.rng, draft.words
    size = rng.randint(1, 4)
    start = rng.randrange(max(1, len(words) - size))
    phrase = [word.upper() for word in words[start : start + size]]
    if rng.random() < 0.5:
        phrase = [rng.choice(_FEELING).upper(), *phrase[: rng.randint(0, 2)]]
    before = " ".join(words[: rng.randint(0, 6)])
    joint = rng.choice([" ", " ", "! ", "!!! ", ""])
    return f"{before} {draft.loop(phrase, 30, joint)}".strip()


def _mixed_words(draft: _Draft) -> str:
    """Words drawn from many texts."""
    return " ".join(draft.other_word() for _ in range(draft.rng.randint(10, _MAX_WORDS)))


def _feeling_list(draft: _Draft) -> str:
    """Feeling words without grammar, as over-steered models write them."""
    rng = draft.rng
    chosen = [
        rng.choice(_FEELING) if rng.random() < 0.6 else _bare(draft.other_word()).lower()
        for _ in range(rng.randint(10, _MAX_WORDS))
    ]
    return rng.choice([" ", " ", ", ", "-"]).join(chosen)


def _chain(draft: _Draft) -> str:
    """Chains of hyphens and other signs, bare, between words, or after a good beginning."""
    rng = draft.rng
    sign = rng.choice(_CHAINS)
    shape = rng.random()
    if shape < 0.4:
        return sign * rng.randint(8, 60)
    if shape < 0.7:
        return "-".join(_bare(rng.choice(draft.words)) for _ in range(rng.randint(10, _MAX_WORDS)))
    spaced = rng.choice([sign, f" {sign}"])
    return f"{' '.join(draft.words[: rng.randint(0, 6)])} {spaced * rng.randint(12, 50)}".strip()


def _random_pieces(draft: _Draft) -> str:
    """Random vocabulary, as a model writes it at a high temperature."""
    chosen = [draft.rng.choice(draft.pieces) for _ in range(draft.rng.randint(10, _MAX_WORDS))]
    return "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in chosen).strip()


CORRUPTIONS: Mapping[str, Callable[[_Draft], str]] = {
    "shuffled": _shuffled,
    "repeated_word": _repeated_word,
    "looped_phrase": _looped_phrase,
    "fluent_then_loop": _fluent_then_loop,
    "letters": _letters,
    "capitals": _capitals,
    "mixed_words": _mixed_words,
    "feeling_list": _feeling_list,
    "chain": _chain,
    "random_pieces": _random_pieces,
}


@dataclass(frozen=True)
class Garbled:
    """One corrupted text and how it was made."""

    kind: str
    text: str


def garble(
    texts: Sequence[str],
    n: int,
    *,
    seed: int,
    pieces: Sequence[str],
    kinds: Sequence[str] = tuple(CORRUPTIONS),
) -> list[Garbled]:
    """Corrupt randomly chosen texts, each kind equally often.

    Args:
        texts: Good texts; empty ones are left out.
        n: How many corrupted texts to make.
        seed: Equal seeds give equal texts.
        pieces: Vocabulary for ``random_pieces``.
        kinds: Keys of `CORRUPTIONS`.

    Raises:
        UnknownNameError: If a kind does not exist.
    """
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise unknown("corruption", kind, CORRUPTIONS)
    rng = random.Random(seed)
    good = [text for text in texts if text.strip()]
    made: list[Garbled] = []
    for index in range(n):
        kind = kinds[index % len(kinds)]
        draft = _Draft(rng.choice(good).split(), rng, good, pieces)
        made.append(Garbled(kind, CORRUPTIONS[kind](draft)))
    return made


def cut_short(text: str, rng: random.Random, least_words: int = 6) -> str:
    """Cut a text somewhere in its second half, as a token limit does; short texts stay whole."""
    words = text.split()
    least = max(least_words, len(words) // 2)
    return text if len(words) <= least else " ".join(words[: rng.randint(least, len(words) - 1)])
