"""One probe: fitted, calibrated on groups of its own, saved, and read with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import affectlens as al
from affectlens.activations import ActivationStore
from affectlens.core.emotions import TONES
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.probes import Probe, fit_probe, read, sweep
from affectlens.probes.calibration import Temperature
from affectlens.probes.estimators.mlp import MLPFit
from tests.geometry.synthetic import SITES, planted

WORDS = ("angry", "happy", "sad", "afraid")


def store_of(**options: Any) -> ActivationStore:
    return planted(n_scenarios=24, content=0.3, noise=0.25, signal=1.0, **options)[0]


@pytest.fixture(scope="module")
def store() -> ActivationStore:
    return store_of()


@pytest.fixture(scope="module")
def probe(store: ActivationStore) -> Probe:
    return fit_probe(store, SITES[0], penalties=(0.01, 1.0))


def test_the_groups_that_fit_calibrate_and_judge_are_apart(
    store: ActivationStore, probe: Probe
) -> None:
    """Refitted by scikit-learn on the groups named by the seed alone."""
    facts = probe.facts
    assert facts["judged_on"] == "test split" and facts["judged"] == 6 * 21
    assert facts["calibrated"] == round(0.25 * 18) * 21
    assert facts["fitted"] == 18 * 21 - facts["calibrated"]
    scenarios, splits = store.column("scenario"), store.column("split")
    names = [n for n in dict.fromkeys(scenarios) if splits[scenarios.index(n)] != "test"]
    order = sorted(names, key=scenarios.index)
    drawn = torch.randperm(18, generator=torch.Generator().manual_seed(0))[:4].tolist()
    apart = {order[i] for i in drawn}
    fit = [i for i, s in enumerate(scenarios) if splits[i] != "test" and s not in apart]
    x, y = store.to_numpy(SITES[0]).astype(np.float64), np.array(store.column("emotion"))
    scaler = StandardScaler().fit(x[fit])
    model = LogisticRegression(C=facts["penalty"], tol=1e-8, max_iter=5000)
    model.fit(scaler.transform(x[fit]), y[fit])
    ours = probe.probabilities(probe.scores(torch.tensor(x).float()), calibrated=False)
    columns = [list(model.classes_).index(tone) for tone in TONES]
    theirs = model.predict_proba(scaler.transform(x))[:, columns]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    # The temperature is that of the rows held out, the quality that of the test rows.
    from affectlens.probes.calibration import CALIBRATIONS, quality

    truth = torch.tensor([[float(e == t) for t in TONES] for e in y])
    scores = probe.scores(torch.tensor(x).float()).double()
    own = torch.tensor([s in apart for s in scenarios])
    wanted = CALIBRATIONS["temperature"].fit(scores[own], truth[own], "softmax", True)
    assert isinstance(probe.calibration, Temperature)
    assert probe.calibration.temperature == pytest.approx(wanted.temperature, rel=1e-3)  # type: ignore[attr-defined]
    test = torch.tensor([s == "test" for s in splits])
    said = quality(
        probe.probabilities(scores[test]).numpy(),
        truth[test].numpy(),
        [s for s, t in zip(scenarios, test, strict=True) if t],
    )
    assert probe.after is not None and probe.before is not None
    assert probe.after.log_loss == pytest.approx(said.log_loss, rel=1e-5)
    assert probe.after.log_loss <= probe.before.log_loss + 0.01


@pytest.mark.parametrize("kind", ["ridge", "lda", "difference_of_means", "one_vs_rest"])
def test_every_kind_is_fitted_calibrated_and_loaded(
    store: ActivationStore, kind: str, tmp_path: Path
) -> None:
    found = fit_probe(
        store.select(split="fit"),
        SITES[1],
        probe=kind,
        penalties=(0.1,),
        calibration="isotonic" if kind == "lda" else "temperature",
        folds=3,
    )
    assert found.facts["judged_on"].startswith("halves") and found.after is not None
    assert found.after.ece < 0.25
    x = store.to_torch(SITES[1])
    p = found.probabilities(found.scores(x))
    torch.testing.assert_close(p.sum(1), torch.ones(len(x), dtype=p.dtype))
    test = np.array(store.column("split")) == "test"
    right = np.array(TONES)[p.argmax(1)] == np.array(store.column("emotion"))
    assert right[test].mean() > 0.5
    found.save(tmp_path / "p.safetensors")
    again = Probe.load(tmp_path / "p.safetensors")
    assert again.probabilities(again.scores(x)).equal(p)
    assert again.brief() == found.brief() and again.table_rows() == found.table_rows()
    assert again.provenance == found.provenance and again.after == found.after
    sets = found.label_sets(found.scores(x), 0.9)
    assert again.label_sets(again.scores(x), 0.9).equal(sets)
    truth = torch.tensor([TONES.index(e) for e in store.column("emotion")])
    assert float(sets.gather(1, truth[:, None])[torch.tensor(test)].double().mean()) > 0.8


def test_a_store_on_disk_is_streamed_to_the_same_probe(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.probes import rows

    whole = fit_probe(store, SITES[0], probe="lda", penalties=(0.1, 1.0))
    monkeypatch.setattr(rows, "_BATCH", 50)
    monkeypatch.setattr(rows.SiteRows, "whole", lambda _self: 1 / 0)  # nothing asks for all rows
    streamed = fit_probe(store.save(tmp_path), SITES[0], probe="lda", penalties=(0.1, 1.0))
    torch.testing.assert_close(streamed.fitted.parts(), whole.fitted.parts(), rtol=1e-5, atol=1e-6)


def test_texts_with_several_labels(store: ActivationStore) -> None:
    ids, tones = store.column("id"), store.column("emotion")
    labels = {i: {t} | ({"loud"} if t in ("anger", "surprise") else set()) for i, t in
              zip(ids, tones, strict=True) if t != "neutral"}  # fmt: skip
    labels |= {i: set[str]() for i, t in zip(ids, tones, strict=True) if t == "neutral"}
    found = fit_probe(store, SITES[0], probe="one_vs_rest", labels=labels, penalties=(0.1,))
    assert "loud" in found.classes and "neutral" not in found.classes and not found.exclusive
    assert found.conformal is None
    p = found.probabilities(found.scores(store.to_torch(SITES[0])))
    loud = torch.tensor([t in ("anger", "surprise") for t in tones])
    said = p[:, found.classes.index("loud")]
    assert float(said[loud].mean()) > 0.55 > 0.35 > float(said[~loud].mean())
    with pytest.raises(DataError, match=r"several labels; choose one_vs_rest"):
        fit_probe(store, SITES[0], labels=labels)
    with pytest.raises(DataError, match="no label sets"):
        found.label_sets(p)
    with pytest.raises(DataError, match="no softmax"):
        found.folded()


def test_a_probe_that_is_not_linear_is_loaded_too(probe: Probe, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((24, 3), (3,), (3, 7), (7,))
    net = MLPFit(*(torch.randn(1, 1, 1, *shape, generator=generator) for shape in shapes))
    found = replace(probe, kind="mlp", fitted=net)
    found.save(tmp_path / "p.safetensors")
    again, x = Probe.load(tmp_path / "p.safetensors"), torch.randn(5, 24, generator=generator)
    inner, inner_bias, outer, outer_bias = (part[0, 0, 0] for part in net.parts().values())
    by_hand = (x @ inner + inner_bias).relu() @ outer + outer_bias
    torch.testing.assert_close(again.scores(x), by_hand)
    torch.testing.assert_close(again.token_scores(x), by_hand)


def test_wrong_requests(store: ActivationStore, tmp_path: Path, probe: Probe) -> None:
    with pytest.raises(UnknownNameError, match=r"site \(one is read\)"):
        fit_probe(store)
    with pytest.raises(UnknownNameError, match="class 'joy'"):
        fit_probe(store, SITES[0], classes=("anger", "joy"))
    with pytest.raises(DataError, match="two different classes"):
        fit_probe(store, SITES[0], classes=("anger",))
    with pytest.raises(DataError, match="18 groups to fit and calibrate on; 4 are held out"):
        fit_probe(store, SITES[0], folds=20)
    with pytest.raises(DataError, match="held_out is a share"):
        fit_probe(store, SITES[0], held_out=1.5)
    with pytest.raises(UnknownNameError, match="calibration 'platt'"):
        fit_probe(store, SITES[0], calibration="platt")
    with pytest.raises(DataError, match="capture the position all"):
        fit_probe(store, SITES[0], probe="attention")
    curves = fit_probe(store, SITES[0], calibration="isotonic", penalties=(0.1,), folds=2)
    with pytest.raises(DataError, match="cannot be folded"):
        curves.folded()
    from affectlens.core.artefact import read_tensors, write_tensors

    probe.save(tmp_path / "p.safetensors")
    file = read_tensors(tmp_path / "p.safetensors")
    for extra in ({**file.extra, "classes": ["a"]}, {**file.extra, "kind": "mlp"}):
        write_tensors(tmp_path / "bad.safetensors", file.tensors, file.provenance, extra)
        with pytest.raises(ArtefactError):
            Probe.load(tmp_path / "bad.safetensors")


def texts_corpus(n: int = 40) -> Corpus:
    records = tuple(
        Record(
            f"r{i}", (Message("text", f"I am {'so ' * (i % 3)}{WORDS[i % 4]} about it {i}."),),
            ("anger", "happiness", "sadness", "fear")[i % 4], None, f"g{i // 4}", "t",
            "test" if i >= n - 8 else "fit",
        )
        for i in range(n)
    )  # fmt: skip
    return Corpus("words", "texts", records)


@pytest.fixture(scope="module")
def captured(tiny_model: Any) -> ActivationStore:
    return al.capture(
        tiny_model(), texts_corpus(), sites="resid_post@1", positions=["mean:text", "all"]
    )


@pytest.mark.parametrize("kind", ["logistic", "attention"])
def test_reading_is_the_probe_of_captured_rows(
    tiny_model: Any, captured: ActivationStore, kind: str, tmp_path: Path
) -> None:
    """In whatever batches, per token and per text."""
    model, site = tiny_model(), Site(1, "resid_post")
    position = None if kind == "attention" else "mean:text"
    found = fit_probe(
        captured, site, probe=kind, position=position, penalties=(0.1,), folds=2, held_out=0.4
    )
    found.save(tmp_path / "p.safetensors")
    found = Probe.load(tmp_path / "p.safetensors")
    corpus = texts_corpus()
    for batch in (4096, 64):
        readings = al.read(model, found, corpus, coverage=0.5, max_tokens_per_batch=batch)
        tokens, ids = captured.to_torch(site, "all"), captured.column("id", "all")
        owner = torch.tensor([int(i[1:]) for i in ids])
        by_token = found.probabilities(found.token_scores(tokens))
        if kind == "attention":
            kept = torch.tensor(captured.column("token", "all")) > 0
            scores = found.scores(tokens[kept], owner[kept])
        else:
            scores = found.scores(captured.to_torch(site, "mean:text"))
        of_text, sets = found.probabilities(scores), found.label_sets(scores, 0.5)
        # The threshold is the score of a row that calibrated: that one lies on either side of it
        # by rounding, whatever the batch.
        assert found.conformal is not None
        missed = 1 - found.probabilities(scores, calibrated=False)
        clear = (missed - found.conformal.threshold(0.5)).abs() > 1e-4
        assert int((~clear).sum()) <= 2
        for i, reading in enumerate(readings.texts):
            np.testing.assert_allclose(reading.of_text, of_text[i], atol=1e-4)
            np.testing.assert_allclose(reading.by_token, by_token[owner == i], atol=1e-4)
            assert "".join(reading.tokens) == corpus.records[i].text == reading.text
            assert reading.labels is not None
            for name, inside, told in zip(found.classes, sets[i], clear[i], strict=True):
                assert (name in reading.labels) is bool(inside) or not told
    plain = found.read(model, [record.text for record in corpus])
    assert plain.position == found.position
    np.testing.assert_allclose(plain[3].of_text, of_text[3], atol=1e-4)
    assert plain.table_rows()[0]["class"] in found.classes and len(plain) == 40


def test_a_replys_probe_reads_plain_texts_as_texts(tiny_model: Any, captured: Any) -> None:
    model = tiny_model()
    found = fit_probe(captured, position="mean:text", penalties=(0.1,), folds=2, held_out=0.4)
    of_reply = replace(found, position="mean:reply")
    assert read(model, of_reply, "I am angry").position == "mean:text"
    np.testing.assert_allclose(
        read(model, of_reply, "I am angry")[0].of_text, read(model, found, "I am angry")[0].of_text
    )
    with pytest.raises(MismatchError, match="This probe was made for model"):
        read(tiny_model("qwen3"), found, "I am angry")
    with pytest.raises(DataError, match="reads one row of a text, which all is not"):
        read(model, found, "I am angry", position="all")
    with pytest.raises(DataError, match="no text to read"):
        read(model, found, [])
    with pytest.raises(DataError, match="nothing but attention sinks"):
        read(model, found, "I")


def test_scores_are_made_where_the_rows_are(probe: Probe) -> None:
    """On a device without values, which refuses to be mixed with any other."""
    rows = torch.empty(5, 24, device="meta")
    for scores in (probe.scores(rows), probe.token_scores(rows)):
        assert scores.device.type == "meta" and scores.shape == (5, 7)
        assert probe.probabilities(scores).device.type == "meta"


def test_a_sweeps_probe_is_one_of_its_own(store: ActivationStore) -> None:
    swept = sweep(store, draws=5, penalties=(0.1,))
    one = Probe.of(swept, SITES[1])
    x = store.to_torch(SITES[1])
    torch.testing.assert_close(one.scores(x), swept.logits(x, SITES[1]))
    assert Probe.of(swept).site == swept.best and one.facts["fitted"] == swept.counts["fit"]
    assert one.brief()["calibration"] == "none"
