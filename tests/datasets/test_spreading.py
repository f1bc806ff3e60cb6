"""A few records that stand for a corpus."""

from __future__ import annotations

from affectlens.datasets import load
from affectlens.datasets.spreading import some_scenarios


def test_some_scenarios_keep_every_split_whole() -> None:
    corpus = load("replies")
    few = some_scenarios(corpus, 5)
    for split in ("fit", "tune", "test"):
        mine, all_ = few.filter(split=split), corpus.filter(split=split)
        names = mine.scenarios()
        assert len(names) == 5 and set(names) <= set(all_.scenarios())
        assert [r for r in all_ if r.scenario in names] == list(mine)
        assert {r.meta["role"] for r in mine} == {r.meta["role"] for r in all_}
    assert some_scenarios(corpus, 1000).records == corpus.records
