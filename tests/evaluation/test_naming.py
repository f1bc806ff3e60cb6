"""Feeling words taken out, first sentences left out, openers copied: against brute force."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from affectlens.datasets.authored import openers
from affectlens.evaluation.judges.lexicon import Lexicon, default_lexicon, words_of
from affectlens.evaluation.naming import copies_opener, mask_feelings, without_first_sentence

SMALL = Lexicon.parse("[anger]\nfurious, had enough, angr*, how dare\n[surprise]\nreally?, wow")


def entries_left(text: str, lexicon: Lexicon) -> list[str]:
    """Brute force: every run of words against every entry, one after the other."""
    words = words_of(text)
    plain = [word.rstrip("?") for word in words]
    found = [word for word in plain if any(word.startswith(p) for p in lexicon.prefixes)]
    for phrase in lexicon.phrases:
        asked = phrase[-1].endswith("?")
        for start in range(len(words) - len(phrase) + 1):
            part = (words if asked else plain)[start : start + len(phrase)]
            if tuple(part) == phrase:
                found.append(" ".join(phrase))
    return found


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("I'm furious about this.", "I'm about this."),
        ("Oh no, I'm furious! They cancelled it.", "Oh no, I'm! They cancelled it."),
        ("Furious. They cancelled it.", "They cancelled it."),
        ("They did it. Angry, furious! Again?", "They did it. Again?"),
        ("She was angry, furious, and gone.", "She was, and gone."),
        ("I am not angry, not at all.", "I am not, not at all."),  # negated entries go too
        ("How dare they! Stop.", "they! Stop."),
        ("I had furious enough of it.", "I of it."),  # an entry that only then comes together
        ("Really? It works, really.", "It works, really."),
        ("Wow!", ""),
        ("FURIOUS, Angrily; wow?", ""),
        ("The train was late.", "The train was late."),
        ('He said "furious" twice...', "He said twice..."),
        ("  two  spaces stay\n\nso do breaks", "  two  spaces stay\n\nso do breaks"),
        ("", ""),
    ],
)
def test_masking_by_hand(text: str, left: str) -> None:
    assert mask_feelings(text, SMALL) == left


def test_no_entry_is_left_whatever_the_text() -> None:
    lexicon, rng = default_lexicon(), random.Random(0)
    entries = [" ".join(p) for p in lexicon.phrases] + [f"{p}ing" for p in lexicon.prefixes]
    filler = ["the", "train", "and", "I", "saw", "so,", "we", "here.", "not", "no", "without"]
    kept = 0
    for _ in range(300):
        words = [rng.choice(entries if rng.random() < 0.4 else filler) for _ in range(12)]
        text = "".join(w + rng.choice([" ", ", ", ". ", "! ", "? "]) for w in words)
        masked = mask_feelings(text)
        assert entries_left(masked, lexicon) == []
        assert mask_feelings(masked) == masked
        # Nothing is made up, and what is no part of an entry stays in order.
        rest = iter(words_of(text.replace("?", "")))
        assert all(word in rest for word in words_of(masked.replace("?", "")))
        kept += len(words_of(masked))
    assert kept > 300


def test_every_entry_of_the_lexicon_goes() -> None:
    lexicon = default_lexicon()
    for entry in itertools.chain(map(" ".join, lexicon.phrases), lexicon.prefixes):
        left = mask_feelings(f"Zug {entry} Zug.")
        assert entry not in left.lower().split() and left.startswith("Zug"), entry


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("I'm furious about this. They cancelled it. Again!", "They cancelled it. Again!"),
        ("How dare they! They cancelled it", "They cancelled it"),
        ("One sentence only.", ""),
        ("One sentence that was cut in the", ""),
        ("What?! No. Yes.", "No. Yes."),
        ("?! Stop it. Now.", "Now."),
        ("1. First of all. 2. Then", "2. Then"),
        ('"I am sad." She left.', "She left."),
        ("It cost 3.50 euros. Too much.", "Too much."),
        ("Mr. Smith came. He left.", "He left."),
        ("Some (e.g. trains) are late. True.", "True."),
        ("Well... maybe it is. Fine.", "Fine."),
        ("Well... Maybe it is.", "Maybe it is."),
        ("A line\nand another", "and another"),
        ("Gone. :-)", ""),
        ("太好了。我们走吧。", "我们走吧。"),
        ("", ""),
        ("...", ""),
    ],
)
def test_first_sentence_by_hand(text: str, rest: str) -> None:
    assert without_first_sentence(text) == rest


def test_openers_by_brute_force() -> None:
    known = [o for texts in openers().values() for o in texts]

    def slow(text: str) -> bool:
        flat = re.sub(r"[^a-z' ]", " ", text.lower().replace("’", "'")).split()
        for opener in known:
            head = re.sub(r"[^a-z' ]", " ", opener.lower().replace("’", "'")).split()[:3]
            if flat[: len(head)] == head:
                return True
        return False

    rng = random.Random(1)
    cases = ["", "This is", "Oh. I'm furious about this.", *known]
    for opener in known:
        words = opener.split()
        cases += [
            opener.upper(),
            " ".join(words[:3]) + "... or not",
            " ".join(words[:2]) + " otherwise",
            opener.replace("'", "’").replace(",", " -"),
            " ".join(rng.sample(words, len(words))),
        ]
    told = [copies_opener(text, known) for text in cases]
    assert told == [slow(text) for text in cases]
    assert all(copies_opener(opener.upper() + " And so on.", known) for opener in known)
    assert 0 < sum(told) < len(told)
    assert not copies_opener("I'm furious about this.", [])
