"""GoEmotions and EmoBank: small files in the originals' format, and the originals if they are here.

The originals are looked for in ``shared/corpora`` beside the checkout, or in the folder that
AFFECTLENS_CORPORA names: ``goemotions/`` and ``emobank/``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from affectlens.core import TONES, DataError, UnknownNameError
from affectlens.core.emotions import label_mapping
from affectlens.datasets import load
from affectlens.datasets.loaders.goemotions import LABELS

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
CORPORA = Path(os.environ.get("AFFECTLENS_CORPORA") or BESIDE)
originals = pytest.mark.skipif(
    not CORPORA.is_dir(), reason=f"the original corpora are not here: there is no folder {CORPORA}"
)

# Ids: 2 anger, 3 annoyance, 17 joy, 27 neutral, 26 surprise.
TRAIN = (
    'My favourite "food" is toast.\t27\taa1\n'
    "He took it, again.\t2,3\taa2\n"
    "What a day\t17\taa3\n"
    "Oh. Good?\t17,26\taa4\n"
)


@pytest.fixture
def goemotions(tmp_path: Path) -> Path:
    for name, text in {"train": TRAIN, "dev": "Hm\t27\tbb1\n", "test": "Wow\t26\tcc1\n"}.items():
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    return tmp_path


def test_goemotions_single_labels(goemotions: Path) -> None:
    corpus = load("goemotions", path=goemotions)
    assert [(r.id, r.emotion, r.split, r.role) for r in corpus] == [
        ("aa1", "neutral", "fit", "direction"),
        ("aa2", "anger", "fit", "judge"),  # anger and annoyance are one label after mapping
        ("aa3", "happiness", "fit", "direction"),
        ("bb1", "neutral", "tune", "tune"),
        ("cc1", "surprise", "test", "test"),
    ]
    assert corpus.records[0].text == 'My favourite "food" is toast.'
    assert corpus.records[1].meta["labels"] == ["anger", "annoyance"]
    assert corpus.provenance["licence"] == "Apache-2.0" and "Demszky" in corpus.provenance["cite"]
    assert corpus.design == "texts" and len(corpus.groups()) == 5


def test_goemotions_options(goemotions: Path) -> None:
    every = load("goemotions", path=goemotions, single_label=False)
    assert len(every) == 6 and every.records[3].emotion == "happiness"
    assert every.records[3].meta["labels"] == ["joy", "surprise"]
    fine = load("goemotions", path=goemotions, mapping="original")
    assert [r.emotion for r in fine] == ["neutral", "joy", "neutral", "surprise"]
    judge = load("goemotions", path=goemotions, role="judge")
    assert Counter(r.role for r in judge) == {"judge": 3, "tune": 1, "test": 1}
    with pytest.raises(UnknownNameError, match="ekman"):
        load("goemotions", path=goemotions, mapping="ekmann")
    with pytest.raises(UnknownNameError, match="judge"):
        load("goemotions", path=goemotions, role="test")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"no tabs here\n", "line 5: 1 fields"),
        (b"text\t28\tdd1\n", "line 5: '28' is no list of label ids from 0 to 27"),
        (b"text\t-1\tdd1\n", "line 5: '-1'"),
        (b"text\tjoy\tdd1\n", "line 5: 'joy'"),
        (b"text\t\tdd1\n", "line 5: ''"),
        (b" \t2\tdd1\n", "line 5: the text is empty"),
        (b"caf\xe9\t2\tdd1\n", "line 5: byte 0xe9 is not UTF-8"),
    ],
)
def test_goemotions_bad_lines(goemotions: Path, line: bytes, words: str) -> None:
    path = goemotions / "train.tsv"
    path.write_bytes(TRAIN.encode() + line)
    with pytest.raises(DataError, match=r"train\.tsv") as raised:
        load("goemotions", path=goemotions)
    assert words in str(raised.value)


def test_goemotions_missing_files(goemotions: Path) -> None:
    (goemotions / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"lacks dev\.tsv"):
        load("goemotions", path=goemotions)
    with pytest.raises(DataError, match="no folder"):
        load("goemotions", path=goemotions / "nowhere")
    with pytest.raises(DataError, match="one source"):
        load("goemotions")
    with pytest.raises(DataError, match="one source"):
        load("goemotions", path=goemotions, hub=True)


def test_mapping_covers_each_label_once() -> None:
    assert len(LABELS) == 28 and LABELS[-1] == "neutral"
    to = label_mapping("goemotions", "ekman")
    assert set(to.to) == set(LABELS) and set(to.to.values()) == set(TONES)


class Split(list[dict[str, Any]]):
    """Rows with features, as the hub's library gives them."""

    def __init__(self, rows: list[dict[str, Any]], names: list[str] | None) -> None:
        super().__init__(rows)
        feature = SimpleNamespace(names=names) if names else object()
        self.features = {"labels": SimpleNamespace(feature=feature)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for the `datasets` library; ``hub.asked`` lists what was loaded."""
    library: Any = ModuleType("datasets")
    library.asked, library.answer = [], {}

    def load_dataset(*arguments: Any) -> Any:
        library.asked.append(arguments)
        if isinstance(library.answer, Exception):
            raise library.answer
        return library.answer

    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return library


def test_goemotions_from_the_hub(hub: Any) -> None:
    names = ["neutral", "joy", "anger"]  # an order of its own: names come from the features
    hub.answer = {
        "train": Split([{"text": "a", "labels": [1], "id": "x1"}], names),
        "validation": Split([{"text": "b", "labels": [2], "id": "x2"}], names),
        "test": Split([{"text": "c", "labels": [27], "id": "x3"}], None),
    }
    corpus = load("goemotions", hub=True)
    assert hub.asked == [("google-research-datasets/go_emotions", "simplified")]
    assert [(r.id, r.emotion, r.split) for r in corpus] == [
        ("x1", "happiness", "fit"),
        ("x2", "anger", "tune"),
        ("x3", "neutral", "test"),
    ]
    assert corpus.provenance["source"] == "hub:google-research-datasets/go_emotions"


def test_hub_that_cannot_be_reached(hub: Any) -> None:
    hub.answer = ConnectionError("no route\nto host")
    with pytest.raises(DataError, match=r"ConnectionError: no route\); check .* path="):
        load("goemotions", hub=True)


def test_hub_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        load("goemotions", hub=True)


EMOBANK = (
    "id,split,V,A,D,text\n"
    'a_1,train,3.0,3.1,3.2,"She said ""no"", twice."\n'
    'a_2,dev,1,5,2.5,"Two\nlines"\n'
    "a_3,test,2.8,3.0,2.75,If I went.\n"
)


@pytest.fixture
def emobank(tmp_path: Path) -> Path:
    (tmp_path / "emobank.csv").write_text(EMOBANK, encoding="utf-8")
    return tmp_path


def test_emobank(emobank: Path) -> None:
    corpus = load("emobank", path=emobank)
    assert [(r.id, r.split, r.emotion) for r in corpus] == [
        ("a_1", "fit", None),
        ("a_2", "tune", None),
        ("a_3", "test", None),
    ]
    assert corpus.records[0].text == 'She said "no", twice.'
    assert corpus.records[1].text == "Two\nlines"
    assert corpus.records[1].meta == {
        "role": "tune",
        "valence": 1.0,
        "arousal": 5.0,
        "dominance": 2.5,
    }
    assert corpus.provenance["scale"] == [1.0, 5.0]
    assert corpus.provenance["licence"] == "CC-BY-SA-4.0"
    assert load("emobank", path=emobank / "emobank.csv").fingerprint == corpus.fingerprint


def test_emobank_genres(emobank: Path) -> None:
    (emobank / "meta.tsv").write_text(
        "id\tdocument\tcategory\tsubcategory\na_1\td\tblog\t \na_3\td\tletters\t \n"
    )
    themes = [r.theme for r in load("emobank", path=emobank)]
    assert themes == ["blog", "sentences", "letters"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("b,train,9,3,3,x", "line 6: rating 9 is not between 1 and 5"),
        ("b,train,nan,3,3,x", "line 6: rating nan"),
        ("b,train,high,3,3,x", "line 6: 'high' is not a number"),
        ("b,trian,3,3,3,x", "line 6: Unknown split 'trian'; choose one of: train"),
        ("b,train,3,3,3, ", "line 6: the text is empty"),
        ("b,train,3,3,3,x,y", "line 6: 7 fields"),
        ('b,train,3,3,3,"open', "line 6: not a CSV table"),
    ],
)
def test_emobank_bad_rows(emobank: Path, row: str, words: str) -> None:
    """Line 6: one of the rows above it holds a line break."""
    (emobank / "emobank.csv").write_text(EMOBANK + row, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        load("emobank", path=emobank)
    assert words in str(raised.value)


def test_emobank_missing_column(emobank: Path) -> None:
    (emobank / "emobank.csv").write_text("id,split,V,A,text\na,train,3,3,x\n")
    with pytest.raises(DataError, match="line 2: no column 'D'"):
        load("emobank", path=emobank)
    with pytest.raises(DataError, match="one source"):
        load("emobank")


def test_emobank_from_the_hub(hub: Any) -> None:
    rows = [{"V": 3.0, "A": 2.0, "D": 4.0, "text": "x"}]
    hub.answer = {"train": Split(rows, None), "test": Split(rows, None)}
    corpus = load("emobank", hub="someone/emobank")
    assert hub.asked == [("someone/emobank", None)]
    assert [(r.id, r.split) for r in corpus] == [("train_0", "fit"), ("test_0", "test")]
    hub.answer = {"train": Split([{"V": 3.0}], None)}
    with pytest.raises(DataError, match="no column 'A'"):
        load("emobank", hub="someone/emobank")


@originals
def test_original_goemotions() -> None:
    folder = CORPORA / "goemotions"
    every = load("goemotions", path=folder, single_label=False, mapping="original")
    assert Counter(r.split for r in every) == {"fit": 43410, "tune": 5426, "test": 5427}
    assert tuple((folder / "labels.txt").read_text().split()) == LABELS
    mapping = json.loads((folder / "ekman_mapping.json").read_text())
    mapping["happiness"] = mapping.pop("joy")
    to = label_mapping("goemotions", "ekman")
    assert {e: ours for ours, fines in mapping.items() for e in fines} == {
        e: ours for e, ours in to.to.items() if e != "neutral"
    }
    single = load("goemotions", path=folder)
    assert single.labels() == TONES and len(single) == 49469
    # By another road: count the train rows whose ids map to fear alone.
    fear = {str(LABELS.index(label)) for label in mapping["fear"]}
    lines = (folder / "train.tsv").read_text(encoding="utf-8").split("\n")
    expected = sum(set(x.split("\t")[1].split(",")) <= fear for x in lines if x)
    assert len(single.filter(split="fit", emotion="fear")) == expected


@originals
def test_original_emobank() -> None:
    corpus = load("emobank", path=CORPORA / "emobank")
    assert Counter(r.split for r in corpus) == {"fit": 8062, "tune": 1000, "test": 1000}
    assert "letters" in {r.theme for r in corpus}
