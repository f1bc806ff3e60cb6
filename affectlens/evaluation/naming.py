"""Naming a feeling and expressing it: what is left of a reply once its feeling words are gone.

"I'm furious about this." passes for anger with any judge, whatever follows. Three readings of the
same reply tell naming from expressing: without its feeling words, without its first sentence, and
whether it begins like one of the openers that steering vectors were made from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from affectlens.core.sentences import first_sentence_end
from affectlens.evaluation.judges.lexicon import Lexicon, default_lexicon, placed_words

OPENER_WORDS = 3
"""A reply copies an opener if it begins with so many of its words, or all of a shorter one."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def mask_feelings(text: str, lexicon: Lexicon | None = None) -> str:
    """A text without any entry of the feeling lexicon, negated entries included.

    Words are taken out and their punctuation is tidied up, so that what is left reads as text:
    "Oh no, I'm furious! They cancelled it." becomes "Oh no, I'm! They cancelled it." Words that
    come to stand together and are an entry then go too.

    Args:
        text: A reply.
        lexicon: Whose entries; default: the one of the word judge.

    Returns:
        The text as it was if it holds no entry; "" if no letter is left.
    """
    lexicon = lexicon or default_lexicon()
    while spans := _entries(text, lexicon):
        for start, end in reversed(spans):
            text = f"{text[:start]} {text[end:]}"
        text = _tidy(text)
    return text if any(c.isalpha() for c in text) else ""


def _entries(text: str, lexicon: Lexicon) -> list[tuple[int, int]]:
    words = placed_words(text)
    return [
        (words[first][1], words[first + count - 1][2])
        for first, count, _, _ in lexicon.spans([word for word, _, _ in words])
    ]


def _tidy(text: str) -> str:
    """Close the gaps that words left: no stray space, comma or stop."""
    for pattern, by in (
        (r"\"\s*\"|“\s*”|\(\s*\)", " "),
        (r"\s+", " "),
        (r"([.!?…][\"'”’)]*)(?:\s+[.!?…,;:]+)+", r"\1"),  # a sentence that is gone
        (r"\s+([.!?…,;:])", r"\1"),
        (r"[,;:]+([,;:.!?…])", r"\1"),
        (r"^[\s.!?…,;:–—-]+", ""),
    ):
        text = re.sub(pattern, by, text)
    return text.strip()


def without_first_sentence(text: str) -> str:
    """What follows the first sentence of a text; "" if no letter does.

    See `affectlens.core.sentences` for where a sentence ends.
    """
    rest = text[first_sentence_end(text) :].strip()
    return rest if any(c.isalpha() for c in rest) else ""


def copies_opener(text: str, openers: Iterable[str]) -> bool:
    """Whether a text begins with the first three words of an opener, or with all of a shorter one.

    Case and punctuation play no part, and an apostrophe may be straight or curly.
    """
    beginning = _plain_words(text)[:OPENER_WORDS]
    heads = [_plain_words(opener)[:OPENER_WORDS] for opener in openers]
    return any(head and beginning[: len(head)] == head for head in heads)


def _plain_words(text: str) -> list[str]:
    return [word.replace("’", "'").lower() for word in _WORD.findall(text)]
