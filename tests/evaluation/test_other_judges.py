"""Judges of labels that are not ours: fitted words, a fitted encoder, an endpoint, a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectlens.core import ArtefactError, DataError, MismatchError, ModelError
from affectlens.datasets import Corpus, Message, Record
from affectlens.evaluation.judges import (
    GARBLED,
    UNJUDGED,
    ClassifierJudge,
    EndpointJudge,
    WordsJudge,
    agreement,
    judge_report,
    refusal_report,
)
from affectlens.evaluation.judges.training_data import Example, FitSettings, own_training_set
from tests.evaluation.stub import Stub, serving
from tests.tiny_run import save_encoder

LABELS = ("joy", "trust", "boredom")
TEXTS = {
    "joy": ("what fun", "so much fun today", "fun and games", "we had fun"),
    "trust": ("rely on them", "you can rely on it", "we rely on you", "rely on me"),
    "boredom": ("nothing to do", "again nothing", "nothing happens", "nothing at all"),
}
EXAMPLES = [Example(text, label) for label, texts in TEXTS.items() for text in texts]


def corpus(labels: tuple[str, ...] = LABELS) -> Corpus:
    records = tuple(
        Record(f"r{i}", (Message("text", e.text),), e.label, None, f"g{i}", "all", "fit")
        for i, e in enumerate(EXAMPLES)
        if e.label in labels
    )
    return Corpus("mine", "texts", records, {}, labels)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
def test_words_are_weighed_as_scikit_learn_does(labels: tuple[str, ...], tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    known = [e for e in EXAMPLES if e.label in labels]
    reference: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
    )
    reference.fit([e.text for e in known], [e.label for e in known])
    asked = ["fun to rely on", "nothing unknown", "zzz", *(e.text for e in known)]
    WordsJudge.fit(known, labels).save(tmp_path / "w.safetensors")
    judge = WordsJudge.load(tmp_path / "w.safetensors")
    said = judge(asked)
    order = [list(reference.classes_).index(label) for label in labels]
    np.testing.assert_allclose(said.probabilities, reference.predict_proba(asked)[:, order], 1e-9)
    assert judge.fingerprint == WordsJudge.fit(known, labels).fingerprint
    assert judge.fingerprint != WordsJudge.fit(known[1:], labels).fingerprint
    alone = [judge([text]).probabilities[0] for text in asked]
    np.testing.assert_allclose(np.array(alone), said.probabilities)


def test_a_damaged_word_judge(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError):
        WordsJudge.load(tmp_path / "none.safetensors")


def test_an_encoder_is_fitted_to_any_labels(tmp_path: Path) -> None:
    """A tiny encoder that reads letters learns labels that differ by them."""
    from affectlens.evaluation.judges import EncoderJudge
    from affectlens.evaluation.judges.fitting import fit_judge

    save_encoder(tmp_path / "encoder")
    letters = {"joy": "abc", "trust": "xyz"}
    records = [
        Record(
            f"{label}{i}", (Message("text", (word[i % 3] + word[i % 2]) * 3),), label, None,
            f"g{label}{i}", "all", "fit",
        )
        for label, word in letters.items()
        for i in range(12)
    ]  # fmt: skip
    data, repeats = own_training_set(records, tuple(letters), texts=200)
    assert data.labels == ("joy", "trust", GARBLED) and repeats == 8
    settings = FitSettings(
        rank=4, epochs=5, authored_repeats=repeats, garbled=6, long_texts=0, learning_rate=1e-2,
        head_learning_rate=3e-2,
    )  # fmt: skip
    fit_judge(tmp_path / "encoder", data, settings).save(tmp_path / "judge.safetensors")
    judge = EncoderJudge.load(tmp_path / "judge.safetensors", tmp_path / "encoder")
    assert judge.labels == ("joy", "trust", GARBLED)
    found = judge(["abab ba", "zyx xz"])
    assert found.chosen == ("joy", "trust")
    other = tmp_path / "other"
    save_encoder(other, seed=1)
    with pytest.raises(MismatchError):
        EncoderJudge.load(tmp_path / "judge.safetensors", other)


def test_of_many_texts_an_epoch_draws_as_many_of_each_label() -> None:
    records = list(corpus())
    data, repeats = own_training_set(records, LABELS, texts=6)
    assert repeats == 1 and not data.authored
    assert {label: tuple(texts) for label, texts in data.comments.items()} == TEXTS


def test_reports_on_any_labels() -> None:
    judge = WordsJudge.fit(EXAMPLES, LABELS)
    found = judge_report(judge, {"mine": corpus()})["corpora"]["mine"]
    assert found["accuracy"] == 1.0 and list(found["recall"]) == list(LABELS)
    assert np.array_equal(found["confusion"], 4 * np.eye(3))
    told = refusal_report(judge, [e.text for e in EXAMPLES], n=8, seed=0, pieces=["a", "b"])
    assert told["emotion_found"] == 1.0  # it knows no garbled text
    fewer = WordsJudge.fit([e for e in EXAMPLES if e.label != "trust"], ("joy", "boredom"))
    with pytest.raises(DataError, match="knows no trust"):
        judge_report(fewer, {"mine": corpus()})


@contextmanager
def answering(answer: Callable[[Any], Any]) -> Generator[tuple[str, list[Any]]]:
    bodies: list[Any] = []

    def chat(body: Any) -> Any:
        bodies.append(body)
        return answer(body)

    with serving(Stub(None, {}, {"/v1/chat/completions": chat})) as url:  # type: ignore[arg-type]
        yield url, bodies


def said(content: str) -> Any:
    return 200, {"choices": [{"message": {"content": content}}]}


def test_an_endpoint_is_asked_blind() -> None:
    def answer(body: Any) -> Any:
        text = body["messages"][1]["content"].removeprefix("Text: ")
        return said(
            {
                "a": 'It is {"label": "Joy"}.',
                "b": "trust",
                "c": '{"label": "rage"}',
                "d": '{"label": "garbled"}',
            }[text]
        )

    with answering(answer) as (url, bodies):
        judge = EndpointJudge.at(url, LABELS)
        assert judge.model == "served" and judge.labels == (*LABELS, GARBLED)
        found = judge(["a", "b", "c", "d"])
        assert found.chosen == ("joy", "trust", UNJUDGED, GARBLED)
        assert np.array_equal(found.judged, [True, True, False, True])
        assert np.array_equal(found.probabilities[found.judged].argmax(1), [0, 1, 3])
        assert np.isnan(found.probabilities[2]).all()
        asked = [body["messages"][1]["content"] for body in bodies]
        assert asked.count("Text: c") == 3  # asked again while no label can be read
        system = {body["messages"][0]["content"] for body in bodies}
        assert len(system) == 1 and "joy, trust, boredom" in system.pop()
        assert EndpointJudge.at(f"{url}#mine", LABELS).model == "mine"
        assert judge.fingerprint != EndpointJudge.at(url, LABELS[:2]).fingerprint


@pytest.mark.parametrize("status", [401, 404])
def test_an_endpoint_that_refuses(status: int) -> None:
    said = "API key" if status == 401 else "no /v1/chat"
    with answering(lambda _b: (status, {})) as (url, _), pytest.raises(DataError, match=said):
        EndpointJudge.at(f"{url}#m", LABELS)(["a"])
    with pytest.raises(DataError, match="No answer"):
        EndpointJudge.at("http://127.0.0.1:9", LABELS)


def test_what_an_endpoint_does_not_answer_is_unjudged_and_never_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fails, is busy, breaks off or lies; it is asked again after a pause that doubles."""
    pauses: list[float] = []
    monkeypatch.setattr("affectlens.evaluation.judges.asking.sleep", pauses.append)
    tries: dict[str, int] = {}

    def answer(body: Any) -> Any:
        text = body["messages"][1]["content"].removeprefix("Text: ")
        tries[text] = tries.get(text, 0) + 1
        if text == "recovers" and tries[text] == 2:
            return said("joy")
        return {
            "good": said("trust"),
            "fails": (500, {"error": "out of memory"}),
            "busy": (429, {"error": {"message": "later"}}),
            "recovers": (503, None),
            "lies": (200, {"choices": []}),
            "refuses": said("I would rather not say."),
        }[text]

    with answering(answer) as (url, _):
        judge = EndpointJudge.at(f"{url}#m", LABELS)
        asked = ["good", "fails", "busy", "recovers", "lies", "refuses"]
        found = judge(asked)
        assert found.chosen == ("trust", UNJUDGED, UNJUDGED, "joy", UNJUDGED, UNJUDGED)
        assert tries == {**dict.fromkeys(asked, 3), "good": 1, "recovers": 2}
        assert sorted(pauses) == [0.5, 0.5, 0.5, 1.0, 1.0]  # of those that did not answer
        with pytest.raises(DataError, match=r"none of 2 questions \(out of memory\)"):
            judge(["fails", "fails"])
        texts = [Record(t, (Message("text", t),), "trust", None, t, "all", "fit") for t in asked]
        report = judge_report(judge, {"c": Corpus("c", "texts", tuple(texts), {}, LABELS)})
        assert report["corpora"]["c"]["n"] == 1 and report["corpora"]["c"]["accuracy"] == 1.0
        assert report["corpora"]["c"]["unjudged"] == pytest.approx(5 / 6)
        told = agreement([judge, WordsJudge.fit(EXAMPLES, LABELS)], asked)
        assert told["endpoint/words"]["agree"] in (0.0, 1.0)


def save_classifier(folder: Path, names: tuple[str, ...]) -> Any:
    """A tiny random BERT classifier."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    save_encoder(folder)
    torch.manual_seed(3)
    config = BertConfig.from_pretrained(folder, id2label=dict(enumerate(names)))
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    model.save_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


def test_a_classifier_of_somebody_elses(tmp_path: Path) -> None:
    import torch

    names = ("Boredom", "envy", "happy", "Trust")
    model, tokenizer = save_classifier(tmp_path, names)
    labels = ("happiness", "trust", "boredom")
    judge = ClassifierJudge.load(tmp_path, labels)
    assert judge.labels == (*labels, "envy")
    texts = ["a", "fun and games", "zz top of the world", "x"]
    found = judge(texts)
    with torch.no_grad():
        rows = [model(**tokenizer(t, return_tensors="pt")).logits.softmax(-1)[0] for t in texts]
    expected = torch.stack(rows)[:, [2, 3, 0, 1]].numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.chosen == tuple(judge.labels[i] for i in expected.argmax(1))


def test_a_classifier_that_lacks_a_label(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "joy", "1": "calm"}}))
    with pytest.raises(DataError, match="no output for trust"):
        ClassifierJudge.load(tmp_path, ("joy", "trust"))
    with pytest.raises(ModelError, match="no text classifier"):
        ClassifierJudge.load(tmp_path, ("joy", "calm"))


def test_a_classifier_with_two_outputs_for_a_label(tmp_path: Path) -> None:
    names = {"0": "anger", "1": "angry", "2": "joy"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    with pytest.raises(DataError, match="two outputs that mean anger: anger and angry"):
        ClassifierJudge.load(tmp_path, ("anger", "happiness"))
