"""The shipped vignettes: no word of feeling, no copies of other texts, settings kept whole."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from affectlens.core import EMOTIONS, TONES
from affectlens.core.feelings import USES, feeling_words
from affectlens.datasets import Corpus, affect_words, check_leakage, load
from affectlens.datasets.leakage.duplicates import near_duplicates


@pytest.fixture(scope="module")
def vignettes() -> Corpus:
    return load("vignettes")


def test_counts_per_emotion_and_split(vignettes: Corpus) -> None:
    assert Counter(record.emotion for record in vignettes) == dict.fromkeys(TONES, 18)
    vignettes.require_complete_groups(TONES)
    roles = {record.scenario: (record.split, record.role) for record in vignettes}
    assert Counter(roles.values()) == {("tune", "tune"): 9, ("test", "test"): 9}
    uses = {(record.scenario, record.role) for record in vignettes}
    assert len(uses) == len(roles) == 18


@pytest.mark.parametrize("use", USES)
def test_no_word_names_or_expresses_a_feeling(vignettes: Corpus, use: str) -> None:
    """Of both lists that the package has; those of the label set are among them."""
    words = [
        re.escape(w).replace(r"\*", r"\w*") for ws in feeling_words()[use].values() for w in ws
    ]
    told = re.compile(rf"\b(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)
    assert told.search("She was furious.") and told.search("It made me glad")
    assert {r.id: told.findall(r.text) for r in vignettes if told.search(r.text)} == {}
    assert not any(affect_words(record.text) for record in vignettes)
    labels = "|".join([*EMOTIONS, "joy", "neutral", "emotion", "feel"])
    label = re.compile(rf"\b(?:{labels})", re.IGNORECASE)
    assert not [record.id for record in vignettes if label.search(record.text)]


def test_nothing_gives_an_emotion_away_but_what_happens(vignettes: Corpus) -> None:
    report = check_leakage(vignettes)
    assert report.messages == ()
    lengths = report.statistics["length"]
    assert max(lengths.values()) - min(lengths.values()) < 5


def test_no_text_is_like_another_here_or_in_any_authored_corpus(vignettes: Corpus) -> None:
    texts = [record.text for record in vignettes]
    assert near_duplicates([*texts, f"Today {texts[3]}"], 0.35) == [(3, len(texts))]
    corpora = [load(name) for name in ("replies", "tones", "events")]
    others = sorted({m.content for corpus in corpora for r in corpus for m in r.messages})
    pairs = near_duplicates([*texts, *others], 0.3)
    assert [pair for pair in pairs if pair[0] < len(texts)] == []
    known = {record.scenario for corpus in corpora for record in corpus}
    assert not known & set(vignettes.scenarios())
