"""Styles: what vectors are refined on when a feeling is to be shown and not named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from affectlens.core import EMOTIONS, DataError, UnknownNameError
from affectlens.core.sentences import sentences
from affectlens.datasets import Corpus, Message, Record, load
from affectlens.evaluation.naming import mask_feelings
from affectlens.pipeline import RunConfig
from affectlens.pipeline.corpus_files import mixed
from affectlens.pipeline.rules import RefineMix
from affectlens.pipeline.sizes import settings_of
from affectlens.pipeline.styles import LEAST_WORDS, STYLES, without_naming
from affectlens.steering.refine.replies import complete_groups


def reply(text: str, group: str = "own:g", emotion: str = "anger") -> Record:
    messages = (Message("user", "My train was cancelled."), Message("assistant", text))
    return Record(f"{group}:{emotion}", messages, emotion, None, group, "x", "fit")


def left(text: str) -> list[str | None]:
    return [record.reply for record in without_naming([reply(text)])]


def test_sentences_are_the_text_again() -> None:
    text = 'Oh no! Mr. Lee said "Stop." He left…\nWhat now? a 1.5 km walk, e.g. home'
    assert sentences(text) == [
        "Oh no!", 'Mr. Lee said "Stop."', "He left…", "What now?", "a 1.5 km walk, e.g. home",
    ]  # fmt: skip
    assert sentences(" \n ") == [] and "".join(sentences(text)).split() != []


def test_sentences_that_name_a_feeling_go() -> None:
    assert left("I'm furious. They cut the last train and nobody came.") == [
        "They cut the last train and nobody came."
    ]
    assert left("They cut the last train. I am not happy. Nobody came.") == [
        "They cut the last train. Nobody came."
    ]
    assert left("I'm furious about this!") == [] == left("Well. That is it.")


def test_nothing_is_named_in_what_implicit_vectors_are_refined_on() -> None:
    said = "They cut the last train and left."
    both = (reply(said), reply(said, "tones:g"))
    expression = Corpus("expression", "replies", both)
    authored = load("replies").filter(role="direction", emotion=EMOTIONS)
    (found,) = mixed(expression, authored, RefineMix(style="implicit"))
    assert all(record.reply == mask_feelings(str(record.reply)) for record in found)
    assert min(len(str(record.reply).split()) for record in found) >= LEAST_WORDS
    assert not any(record.group.startswith("own:") for record in found)
    before = {record.id: str(record.reply) for record in (*authored, *expression)}
    assert all(set(sentences(str(r.reply))) <= set(sentences(before[r.id])) for r in found)
    assert len(complete_groups(found, EMOTIONS)) >= 12  # of 32; a descent takes 2 to 4 a step
    explicit = mixed(expression, authored, RefineMix())
    assert [pool.name for pool in explicit] == ["own", "tones", "own", "replies"]
    assert explicit[3] == authored


def test_a_style_changes_what_is_refined_and_no_more(tmp_path: Path) -> None:
    def of(style: str):
        return settings_of(RunConfig.checked(out=tmp_path, device="cpu", style=style))

    plain, shown = of("explicit"), of("implicit")
    assert plain == settings_of(RunConfig.checked(out=tmp_path, device="cpu"))
    for stage in ("directions", "circuit", "controls"):
        one, other = getattr(plain, stage), getattr(shown, stage)
        pools = (*one.mix.pools, "implicit")
        assert other.mix == replace(one.mix, style="implicit", pools=pools)
        assert other.refine == replace(one.refine, first_weight=0.0)
        assert replace(other, mix=one.mix, refine=one.refine) == one
    for stage in ("express", "activations", "pack", "tune", "evaluate", "report"):
        assert getattr(plain, stage) == getattr(shown, stage)
    with pytest.raises(UnknownNameError, match=r"style 'implicid'.*implicit"):
        of("implicid")
    assert list(STYLES) == ["explicit", "implicit"]


def test_texts_that_all_name_the_feeling_cannot_be_implicit() -> None:
    named = Corpus("c", "replies", tuple(reply("I'm furious.", "tones:g", e) for e in EMOTIONS))
    with pytest.raises(DataError, match=r"Every reply names its feeling.*--style explicit"):
        mixed(named, named, RefineMix(("tones",), "implicit"))
    shown = reply("They cut the last train and left.", "tones:g")
    (found,) = mixed(Corpus("c", "replies", (shown,)), named, RefineMix(("tones",), "implicit"))
    with pytest.raises(DataError, match="implicit has no group with a reply in every one"):
        complete_groups(found, EMOTIONS)
