"""The list of corpora, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from affectlens.datasets import CORPORA, Corpus, CorpusInfo, Message, Record, list_corpora, load


def test_list_tells_the_truth_about_shipped_corpora() -> None:
    shipped = [info for info in list_corpora() if info.source == "shipped"]
    names = ["scenarios", "replies", "implicit", "tones", "events", "vignettes"]
    assert [info.name for info in shipped] == names
    for info in shipped:
        corpus = load(info.name)
        assert (len(corpus), corpus.design) == (info.rows, info.design)
        assert corpus.provenance["licence"] == info.licence


def test_every_corpus_says_what_to_cite_and_under_which_licence() -> None:
    for info in list_corpora():
        assert info.licence and info.cite and info.help and info.source


def test_import_and_load_need_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "datasets", "sklearn", "numpy", "pyarrow")
    code = (
        "import sys, affectlens.datasets as d; d.load('replies').fingerprint; "
        f"sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_toy_corpus_is_there_by_its_name() -> None:
    def one() -> Corpus:
        message = Message("text", "Nothing happened.")
        return Corpus("one", "texts", (Record("a", (message,), None, None, "g", "t", "fit"),))

    toy = CorpusInfo("one", "texts", 1, "CC0-1.0", "nowhere", "a single text", "nobody", one)
    with CORPORA.adding(toy):
        assert len(load("one")) == 1 and list_corpora()[-1] is toy
    assert "one" not in CORPORA
