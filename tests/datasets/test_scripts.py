"""Near-duplicates in scripts without spaces, and in mixtures."""

from __future__ import annotations

import unicodedata
from random import Random

import pytest

from affectlens.datasets import Corpus, Message, Record, check_leakage
from affectlens.datasets.leakage.duplicates import near_duplicates
from affectlens.datasets.scripts import n_words, shingles

SENTENCES = {
    "chinese": (
        "我今天非常生气因为火车又取消了",
        "我今天非常生气，因为火车取消了。",
        "他走了以后我一直很难过",
    ),
    "japanese": (
        "電車がまたキャンセルされて本当に怒っています",
        "電車がｷｬﾝｾﾙされて、本当に怒っています！",
        "明日の試験がとても怖いです",
    ),
    "thai": (
        "ฉันโกรธมากเพราะรถไฟถูกยกเลิกอีกแล้ว",
        "ฉันโกรธมาก เพราะรถไฟถูกยกเลิกแล้ว",
        "ฉันกลัวการสอบพรุ่งนี้มาก",
    ),
    "khmer": (
        "ខ្ញុំខឹងណាស់ព្រោះរថភ្លើងត្រូវបានលុបចោល",
        "ខ្ញុំខឹងណាស់ ព្រោះរថភ្លើងត្រូវបានលុបចោល។",
        "ខ្ញុំខ្លាចការប្រឡងថ្ងៃស្អែក",
    ),
    "lao": (
        "ຂ້ອຍໃຈຮ້າຍຫຼາຍເພາະລົດໄຟຖືກຍົກເລີກ",
        "ຂ້ອຍໃຈຮ້າຍຫຼາຍ ເພາະລົດໄຟຖືກຍົກເລີກ",
        "ຂ້ອຍຢ້ານການສອບເສັງມື້ອື່ນ",
    ),
    "mixed": (
        "我的iPhone今天又坏了，我非常生气",
        "我的 ｉＰｈｏｎｅ 今天又坏了 我非常生气",
        "我的iPhone很好看大家都喜欢",
    ),
    "full width": (
        "Ｉ ａｍ ｓｏ ａｎｇｒｙ ａｔ ｔｈｅｍ",
        "I am so angry at them",
        "We won the match today at last",
    ),
    "korean": (
        "기차가 또 취소되어서 정말 화가 나요",
        unicodedata.normalize("NFD", "기차가 또 취소되어서 정말 화가 나요"),
        "내일 시험이 정말 무서워요 어떡하죠",
    ),
}


def texts(*contents: str) -> Corpus:
    records = (
        Record(f"r{i}", (Message("text", text),), "anger", None, f"g{i}", "t", split)
        for i, (text, split) in enumerate(zip(contents, ("fit", "test", "fit"), strict=False))
    )
    return Corpus("x", "texts", tuple(records))


@pytest.mark.parametrize("name", SENTENCES)
def test_nearly_the_same_in_two_splits(name: str) -> None:
    (found,) = check_leakage(texts(*SENTENCES[name])).of_kind("near_duplicates")
    assert found.records == ("r0", "r1")


def test_shingles() -> None:
    assert shingles("I can't, can I?") == {"i", "can't", "can"}
    assert shingles("我很 生气!") == {"我很", "很生", "生气"}
    assert shingles("我的iPhone坏了") == {"我的", "iphone", "坏了"}
    assert shingles("กลัวมาก") == {"กลั", "ลัว", "ัวม", "วมา", "มาก"}
    assert shingles("好") == {"好"} and shingles("!?") == frozenset()


def test_n_words() -> None:
    assert n_words("so it goes, he said") == 5
    assert n_words("我很生气") == 2 and n_words("我的 iPhone 坏了") == 3
    assert n_words("หนึ่งสองสามสี่") > n_words("หนึ่ง")


@pytest.mark.parametrize("script", ["han", "thai"])
def test_as_brute_force(script: str) -> None:
    rng, letters = Random(0), "我你他很不气怕喜哀车" if script == "han" else "กขคงจฉชซญ่า"
    bases = ["".join(rng.choices(letters, k=rng.randint(6, 14))) for _ in range(12)]
    pool = [b[: rng.randint(5, 14)] + "".join(rng.choices(letters, k=2)) for b in bases * 5]
    sets = [shingles(text) for text in pool]
    expected = [
        (i, j)
        for i in range(len(pool))
        for j in range(i + 1, len(pool))
        if sets[i] and len(sets[i] & sets[j]) >= 0.6 * len(sets[i] | sets[j]) - 1e-9
    ]
    assert near_duplicates(pool, 0.6) == expected and expected


def test_ten_thousand_rows() -> None:
    rng = Random(1)
    letters = [chr(0x4E00 + i) for i in range(800)]
    pool = ["".join(rng.choices(letters, k=rng.randint(12, 40))) for _ in range(10_000)]
    pool[5_000] = pool[17]
    assert near_duplicates(pool, 0.6) == [(17, 5_000)]


def test_full_width_marks_count_as_marks() -> None:
    rows = [
        Record(f"{e}{i}", (Message("text", f"文{i}{mark}"),), e, None, f"{e}{i}", "t", "fit")
        for e, mark in (("anger", "！"), ("fear", "？"))
        for i in range(9)
    ]
    report = check_leakage(Corpus("x", "texts", tuple(rows)))
    assert report.statistics["exclamation_marks"] == {"anger": 1.0, "fear": 0.0}
    assert report.statistics["question_marks"] == {"anger": 0.0, "fear": 1.0}
