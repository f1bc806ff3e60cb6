"""Rating by hand: blind, two keys, kept at once, gone on with, and held against a judge."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.cli.rating_screen import rate_on_screen
from affectlens.core import TONES, ArtefactError, DataError, UnknownNameError
from affectlens.evaluation import Reply
from affectlens.evaluation.judges import UNJUDGED, LexiconJudge, Verdicts
from affectlens.evaluation.rating import (
    Rating,
    Shown,
    agreement_with,
    kappa,
    keys_of,
    sample,
    text_key,
)
from affectlens.pipeline.arm_files import file_of, save_replies
from affectlens.pipeline.rate import RateRequest, close_sitting, open_sitting

ARMS = ("circuit", "residual")


def reply(arm: str, emotion: str, text: str) -> Reply:
    return Reply(arm, "e", "g", "neutral", emotion, "Hi.", text, 3, 1.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for arm in ARMS:
        (tmp_path / "replies").mkdir(exist_ok=True)
        made = [
            reply(arm, e, f"{arm} says {e} thing {i}.") for e in ("anger", "fear") for i in (1, 2)
        ]
        save_replies([*made, reply(arm, "anger", "Both say this."), reply(arm, "fear", " ")],
                     tmp_path / file_of(arm))  # fmt: skip
    return tmp_path


def typed(keys: str):
    waiting = iter(keys)
    return lambda: next(waiting, "q")


def test_every_label_has_a_key_of_its_own() -> None:
    keys = keys_of((*TONES, "garbled"))
    assert list(keys.values()) == [*TONES, "garbled"] and len(keys) == 8
    assert keys["a"] == "anger" and keys["s"] == "sadness" and keys["u"] == "surprise"
    assert not {"q", "z"} & set(keys)
    assert set(keys_of(("q", "z", "quiz"))) == {"0", "1", "u"}
    with pytest.raises(DataError, match="no key left"):
        keys_of([f"q{'z' * i}" for i in range(11)])


def test_a_sample_is_blind_balanced_and_the_same_for_all_raters() -> None:
    texts = [
        Shown(text_key(f"{arm}{target}{i}"), f"{arm}{target}{i}", target, arm)
        for arm in ARMS
        for target in ("anger", "fear")
        for i in range(9)
    ]
    chosen = sample(texts, 12, 0)
    assert Counter((s.arm, s.target) for s in chosen) == dict.fromkeys(
        [(arm, target) for arm in ARMS for target in ("anger", "fear")], 3
    )
    assert [s.arm for s in chosen] != sorted(s.arm for s in chosen)
    assert chosen == sample(texts[::-1], 12, 0) != sample(texts, 12, 1)
    assert len(sample([*texts, *texts], None, 0)) == 36
    with pytest.raises(DataError, match="no text to rate"):
        sample([Shown("k", "  ")], None, 0)


def test_kappa_against_its_formula() -> None:
    a, b = list("aabbbcca"), list("abbbacca")
    observed = np.mean([x == y for x, y in zip(a, b, strict=True)])
    chance = sum(a.count(c) * b.count(c) for c in "abc") / 64
    assert kappa(a, b) == pytest.approx((observed - chance) / (1 - chance))
    assert math.isnan(kappa([], [])) and math.isnan(kappa(["a"], ["a"]))


def test_agreement_leaves_out_what_has_no_verdict_and_tells_the_sure_ones_apart() -> None:
    given = [("1", "anger", "3"), ("2", "fear", "3"), ("3", "fear", "1"), ("4", "anger", "2")]
    ratings = [Rating(key, label, sure, "me") for key, label, sure in given]
    found = agreement_with("j", ratings, {"1": "anger", "2": "fear", "3": "anger"})
    assert (found.n, found.agree, found.sure_n) == (3, pytest.approx(2 / 3), 2)
    assert found.sure_kappa == 1.0 and found.kappa == pytest.approx(0.4)


def test_a_sitting_is_kept_key_by_key_and_gone_on_with(run: Path, capsys) -> None:
    request = RateRequest(run, n=6)
    sitting = open_sitting(request)
    assert len(sitting.texts) == 6 and sitting.labels == (*TONES, "garbled")
    assert not rate_on_screen(sitting, typed("a3x" + "fq"))  # q after the tone: not rated
    said = capsys.readouterr().out
    assert sitting.texts[0].text in said and "circuit" not in said.replace("circuit says", "")
    assert [(r.label, r.sure) for r in sitting.ratings] == [("anger", "3")]
    again = open_sitting(request)
    assert [s.key for s in again.left] == [s.key for s in sitting.texts[1:]]
    assert not rate_on_screen(again, typed("h2" + "z" + "s1" + "fz" + "n2" + "q"))
    assert [r.label for r in again.ratings] == ["anger", "sadness", "neutral"]
    kept = [json.loads(line) for line in request.ratings_file.read_text().splitlines()]
    assert [row["label"] for row in kept] == ["anger", "sadness", "neutral"]
    with request.ratings_file.open("a") as out:
        out.write('{"key": "cut of')
    last = open_sitting(request)
    assert len(last.left) == 3 and rate_on_screen(last, typed("a1" * 3))
    assert len(open_sitting(request).ratings) == 6 and not open_sitting(request).left
    assert len(open_sitting(RateRequest(run, n=6, rater="you")).left) == 6


def test_ratings_are_held_against_judges_and_targets(run: Path) -> None:
    class Half:
        name, labels, fingerprint = "half", ("anger", "fear"), "half"

        def __call__(self, texts):
            chosen = [
                "anger" if "anger" in t else "fear" if "fear" in t else UNJUDGED for t in texts
            ]
            return Verdicts(self.labels, tuple(chosen), np.zeros((len(texts), 2)))

    sitting = open_sitting(RateRequest(run, n=None))
    assert len(sitting.texts) == 9  # equal texts once, the empty ones not at all
    for shown in sitting.texts:
        sitting.rate(shown, "anger", "3")
    result = close_sitting(sitting, [Half(), LexiconJudge()])
    half = result["agreement"][0]
    assert (half["n"], half["agree"]) == (8, 0.5)
    heard = result["heard"]
    assert heard["residual"][1] == pytest.approx(heard["residual"][1]) and set(heard) == set(ARMS)
    assert sum(n * share for n, share in heard.values()) == 6  # of anger, the text of both for each
    assert json.loads((run / "ratings" / "me.json").read_text())["n"] == 9


def test_what_cannot_be_rated_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no replies to rate"):
        open_sitting(RateRequest(tmp_path / "none"))
    with pytest.raises(UnknownNameError, match="circuit"):
        open_sitting(RateRequest(run, arms=("circus",)))
    with pytest.raises(DataError, match="rater's name"):
        RateRequest(run, rater="../me")
    request = RateRequest(run)
    request.ratings_file.parent.mkdir()
    request.ratings_file.write_text('{"key": "x"}\n')
    with pytest.raises(DataError, match="rating is damaged"):
        open_sitting(request)
    request.ratings_file.write_text('{"key": "x", "label": "bliss", "sure": "3", "rater": "me"}\n')
    with pytest.raises(UnknownNameError, match="bliss"):
        open_sitting(request)


def test_the_command_rates_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("body,label\nA fine day,joy\nA bad day,woe\nA day,joy\n")
    keys = typed("j3w3")
    monkeypatch.setattr("click.getchar", lambda: keys())
    given = ["rate", "--file", str(tmp_path / "t.csv"), "--column", "text=body",
             "--run", str(tmp_path), "-n", "2", "--rater", "ann", "--seed", "4"]  # fmt: skip
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    kept = (tmp_path / "ratings" / "ann.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in kept} == {"joy", "woe"} and len(kept) == 2
    assert "You and the judges" in done.output


def test_what_several_arms_say_is_rated_once_and_counts_for_each(tmp_path: Path) -> None:
    (tmp_path / "replies").mkdir()
    angry, no = "I am so angry right now!", "I do not want that."
    said = {
        "circuit": [("anger", angry), ("fear", no)],
        "prompted": [("anger", angry)],
        "residual": [("disgust", angry), ("fear", no)],
    }
    for arm, replies in said.items():
        save_replies([reply(arm, e, text) for e, text in replies], tmp_path / file_of(arm))
    sitting = open_sitting(RateRequest(run=tmp_path, arms=tuple(said)))
    assert len(sitting.left) == 2
    for shown in sitting.left:
        sitting.rate(shown, "anger" if shown.text == angry else "fear", "3")
    heard = close_sitting(sitting, [])["heard"]
    assert heard == {"circuit": (2, 1.0), "prompted": (1, 1.0), "residual": (2, 0.5)}


def test_built_in_judges_are_asked_only_for_labels_that_they_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("body,label\nYou idiot,anger\nPlease do,polite\n")
    keys = typed("a3p3")
    monkeypatch.setattr("click.getchar", lambda: keys())
    given = ["rate", "--file", str(tmp_path / "t.csv"), "--column", "text=body"]
    done = CliRunner().invoke(app, [*given, "--run", str(tmp_path), "--rater", "ann"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "ratings" / "ann.json").read_text())["agreement"] == []
