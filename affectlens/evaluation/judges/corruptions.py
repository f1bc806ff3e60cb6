"""The kinds of corruption: those a judge is trained on, and those it is only ever tested on.

A judge that refuses what it was trained to refuse has shown memory, no more. So whole kinds are
held out: `HELD_OUT` never enters training and was not looked at when settings were chosen.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from affectlens.evaluation.judges.corruption_words import (
    CHAINS,
    EMOJI,
    FEELINGS,
    FOREIGN,
    JOINING,
    MARKUP,
    PREFIXES,
    SUFFIXES,
)

_MAX_WORDS = 40


@dataclass(frozen=True)
class Draft:
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

    def beginning(self, least: int, most: int) -> list[str]:
        """The first words of the text, as many as chance says."""
        return list(self.words[: self.rng.randint(least, most)])


def _bare(word: str) -> str:
    return word.strip(".,!?;:\"'") or "the"


# ---- kinds a judge is trained on


def _shuffled(draft: Draft) -> str:
    """The same words in random order (short texts are first joined with others)."""
    rng, words = draft.rng, list(draft.words)
    while len(words) < 8:
        words += rng.choice(draft.texts).split()
    words = words[:_MAX_WORDS]
    rng.shuffle(words)
    return " ".join(map(_bare, words) if rng.random() < 0.5 else words)


def _repeated_word(draft: Draft) -> str:
    """``angry angry angry``."""
    rng = draft.rng
    word = rng.choice([_bare(rng.choice(draft.words)).lower(), rng.choice(FEELINGS)])
    joint = rng.choice([" ", " ", ", ", " - ", "-", "! ", ". ", "... "])
    return joint.join([word] * rng.randint(4, 30))


def _looped_phrase(draft: Draft) -> str:
    """A phrase of the text over and over."""
    rng, words = draft.rng, draft.words
    if rng.random() < 0.5:
        words = [rng.choice(FEELINGS), *words]
    size = rng.randint(2, 6)
    start = rng.randrange(max(1, len(words) - size))
    return draft.loop(words[start : start + size], _MAX_WORDS)


def _fluent_then_loop(draft: Draft) -> str:
    """A good beginning that falls into a loop."""
    rng, words = draft.rng, draft.words
    kept = rng.randint(2, 10)
    phrase = rng.choice(
        [
            words[max(0, kept - rng.randint(1, 4)) : kept] or words[:1],
            [rng.choice(FEELINGS)],
            rng.sample(FEELINGS, 2),
            ["the"],
            [rng.choice(words)],
        ]
    )
    return " ".join(words[:kept]) + " " + draft.loop(phrase, 30)


def _letters(draft: Draft) -> str:
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


def _capitals(draft: Draft) -> str:
    """A loop in capitals, bare or after a few good words."""
    rng, words = draft.rng, draft.words
    size = rng.randint(1, 4)
    start = rng.randrange(max(1, len(words) - size))
    phrase = [word.upper() for word in words[start : start + size]]
    if rng.random() < 0.5:
        phrase = [rng.choice(FEELINGS).upper(), *phrase[: rng.randint(0, 2)]]
    before = " ".join(words[: rng.randint(0, 6)])
    joint = rng.choice([" ", " ", "! ", "!!! ", ""])
    return f"{before} {draft.loop(phrase, 30, joint)}".strip()


def _mixed_words(draft: Draft) -> str:
    """Words drawn from many texts."""
    return " ".join(draft.other_word() for _ in range(draft.rng.randint(10, _MAX_WORDS)))


def _feeling_list(draft: Draft) -> str:
    """Feeling words without grammar, as over-steered models write them."""
    rng = draft.rng
    chosen = [
        rng.choice(FEELINGS) if rng.random() < 0.6 else _bare(draft.other_word()).lower()
        for _ in range(rng.randint(10, _MAX_WORDS))
    ]
    return rng.choice([" ", " ", ", ", "-"]).join(chosen)


def _chain(draft: Draft) -> str:
    """Chains of hyphens and other signs, bare, between words, or after a good beginning."""
    rng = draft.rng
    sign = rng.choice(CHAINS)
    shape = rng.random()
    if shape < 0.4:
        return sign * rng.randint(8, 60)
    if shape < 0.7:
        return "-".join(_bare(rng.choice(draft.words)) for _ in range(rng.randint(10, _MAX_WORDS)))
    spaced = rng.choice([sign, f" {sign}"])
    return f"{' '.join(draft.words[: rng.randint(0, 6)])} {spaced * rng.randint(12, 50)}".strip()


def _random_pieces(draft: Draft) -> str:
    """Random vocabulary, as a model writes it at a high temperature."""
    chosen = [draft.rng.choice(draft.pieces) for _ in range(draft.rng.randint(10, _MAX_WORDS))]
    return "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in chosen).strip()


def _dropped(draft: Draft) -> str:
    """Every other word or so lost and the rest doubled: ``door hands hands shaking not not``."""
    rng, words = draft.rng, list(draft.words)
    while len(words) < 16:
        words += rng.choice(draft.texts).split()
    kept = [word for word in words[: 2 * _MAX_WORDS] if rng.random() < 0.45] or words[:1]
    return " ".join(w for word in kept for w in [_bare(word)] * rng.choice((1, 1, 2, 3)))


def _spliced(draft: Draft) -> str:
    """Scraps of two to four words from many texts, one after the other."""
    rng = draft.rng
    scraps: list[str] = []
    while len(scraps) < rng.randint(12, _MAX_WORDS):
        words = rng.choice(draft.texts).split()
        start = rng.randrange(len(words))
        scraps += words[start : start + rng.randint(2, 4)]
    return " ".join(scraps)


# ---- kinds a judge is only tested on


def _creeping_loop(draft: Draft) -> str:
    """A sentence over and over, a little other each time: ``I am so sad that I am so sad and``."""
    rng = draft.rng
    phrase = draft.beginning(3, 7)
    out: list[str] = []
    for _ in range(rng.randint(5, 9)):
        turn = list(phrase)
        turn[rng.randrange(len(turn))] = rng.choice(FEELINGS)
        if rng.random() < 0.5:
            turn.insert(rng.randrange(len(turn) + 1), rng.choice(("so", "very", "more", "all")))
        out += [*turn, rng.choice(JOINING)]
    return " ".join(out)


def _numbered_loop(draft: Draft) -> str:
    """A list that never gets beyond its first item."""
    item = " ".join(draft.beginning(2, 6)).rstrip(".,!?")
    mark = draft.rng.choice(("{}. {}", "{}) {}", "- {1}", "* {1}", "{}: {}"))
    count = draft.rng.randint(5, 10)
    return "\n".join(mark.format(number, item) for number in range(1, count + 1))


def _language_drift(draft: Draft) -> str:
    """English that slides into words of several other languages."""
    rng = draft.rng
    other = [rng.choice(FOREIGN) for _ in range(rng.randint(12, 30))]
    late = [rng.choice(FEELINGS) if rng.random() < 0.2 else word for word in other]
    return " ".join([*draft.beginning(0, 6), *late])


def _broken_morphology(draft: Draft) -> str:
    """Feeling words and others under heaps of endings: ``angernesses unfurious-ly scaredinged``."""
    rng = draft.rng

    def grown() -> str:
        stem = _bare(draft.other_word()).lower() if rng.random() < 0.5 else rng.choice(FEELINGS)
        ends = "".join(rng.choice(SUFFIXES) for _ in range(rng.randint(1, 4)))
        return (rng.choice(PREFIXES) if rng.random() < 0.4 else "") + stem + ends

    return " ".join(grown() for _ in range(rng.randint(10, 25)))


def _markup_soup(draft: Draft) -> str:
    """Words between tags, marks of a chat template, code and addresses."""
    rng = draft.rng
    words = [
        rng.choice(MARKUP) if rng.random() < 0.5 else _bare(draft.other_word())
        for _ in range(rng.randint(12, _MAX_WORDS))
    ]
    return rng.choice((" ", " ", "")).join(words)


def _punctuation_storm(draft: Draft) -> str:
    """Words of the text in pieces, each among emoji and bursts of signs."""
    rng = draft.rng
    out: list[str] = []
    for _ in range(rng.randint(8, 20)):
        burst = "".join(rng.choice("!?.,;:*~^&%$#@") for _ in range(rng.randint(2, 9)))
        word = rng.choice((rng.choice(FEELINGS), _bare(draft.other_word())))
        out.append(rng.choice((f"{word}{burst}", f"{burst}{word}", f"{burst} {rng.choice(EMOJI)}")))
    return " ".join(out)


def _feeling_chorus(draft: Draft) -> str:
    """Words of one feeling among little words: ``so rage and of mad the furious``."""
    rng = draft.rng
    few = rng.sample(FEELINGS, rng.randint(2, 5))
    out: list[str] = []
    for _ in range(rng.randint(8, 18)):
        out += [rng.choice(few), *rng.choices(JOINING, k=rng.randint(1, 2))]
    return " ".join(out)


def _run_together(draft: Draft) -> str:
    """No blanks between the words, some of them cut."""
    rng = draft.rng
    words = [_bare(draft.other_word()) for _ in range(rng.randint(10, 30))]
    words[::3] = [rng.choice(FEELINGS) for _ in words[::3]]
    cut = [word[: max(2, rng.randint(2, 9))] for word in words]
    joined = [cut[i] + (" " if rng.random() < 0.15 else "") for i in range(len(cut))]
    return "".join(word.title() if rng.random() < 0.3 else word for word in joined).strip()


def _collapse(draft: Draft) -> str:
    """Half a text that reads well, then ever worse: other words, pieces, feelings, signs."""
    rng = draft.rng
    out = list(draft.words[: min(12, max(3, len(draft.words) // 2))])
    steps = rng.randint(16, 30)
    for step in range(steps):
        bad = step / steps
        choice = rng.random()
        if choice < 0.5 * bad:
            out.append(rng.choice(draft.pieces).replace("##", "") + rng.choice(("", "-", "!", "#")))
        elif choice < 0.5:
            out.append(rng.choice(FEELINGS))
        else:
            out.append(_bare(draft.other_word()))
    return " ".join(out)


TRAINED: Mapping[str, Callable[[Draft], str]] = {
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
    "dropped": _dropped,
    "spliced": _spliced,
}
"""Kinds that judges are trained to refuse."""

HELD_OUT: Mapping[str, Callable[[Draft], str]] = {
    "creeping_loop": _creeping_loop,
    "numbered_loop": _numbered_loop,
    "language_drift": _language_drift,
    "broken_morphology": _broken_morphology,
    "markup_soup": _markup_soup,
    "punctuation_storm": _punctuation_storm,
    "feeling_chorus": _feeling_chorus,
    "run_together": _run_together,
    "collapse": _collapse,
}
"""Kinds that no judge was trained on."""

CORRUPTIONS: Mapping[str, Callable[[Draft], str]] = {**TRAINED, **HELD_OUT}
