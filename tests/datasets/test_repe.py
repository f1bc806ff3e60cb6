"""RepE's scenarios: small files in the authors' format, and the originals if they are here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from affectlens.core import EMOTIONS, DataError
from affectlens.datasets import CORPORA, load
from tests.datasets.test_third_party import CORPORA as FOLDER
from tests.datasets.test_third_party import originals


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for emotion in EMOTIONS:
        texts = [f"You meet {emotion} number {n}." for n in range(20)]
        both = ["You drop it."] if emotion in ("anger", "fear") else []
        rows = [*texts, f"  {texts[0]}\n", "", *both]
        (tmp_path / f"{emotion}.json").write_text(json.dumps(rows))
    return tmp_path


def test_sentences_become_records_of_their_own(folder: Path) -> None:
    corpus = load("repe", path=folder)
    assert Counter(r.emotion for r in corpus) == dict.fromkeys(EMOTIONS, 20)
    assert all(str(r.emotion) in r.text for r in corpus) and len(corpus.groups()) == 120
    splits = Counter((r.emotion, r.split) for r in corpus)
    assert all(splits[e, "fit"] == 13 and splits[e, "test"] == 4 for e in EMOTIONS)
    assert load("repe", path=folder).fingerprint == corpus.fingerprint
    assert load("repe", path=folder, seed=1).fingerprint != corpus.fingerprint
    assert corpus.provenance["licence"] == "MIT"


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is no JSON"), ('{"a": 1}', "no list of sentences"), ("[1]", "no list of sentences")],
)
def test_a_damaged_file_is_refused(folder: Path, content: str, said: str) -> None:
    (folder / "fear.json").write_text(content)
    with pytest.raises(DataError, match=rf"fear\.json {said}|fear\.json is {said}"):
        load("repe", path=folder)


def test_a_missing_source_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="path="):
        load("repe")
    (folder / "surprise.json").unlink()
    with pytest.raises(DataError, match=r"lacks surprise\.json"):
        load("repe", path=folder)


@originals
def test_the_originals() -> None:
    corpus = load("repe", path=FOLDER / "repe_emotions")
    assert len(corpus) == CORPORA["repe"].rows
    assert set(Counter(r.emotion for r in corpus)) == set(EMOTIONS)
    assert {r.split for r in corpus} == {"fit", "tune", "test"}
