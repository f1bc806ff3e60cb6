"""What is read: labels and numbers, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from affectlens.activations import ActivationStore
from affectlens.core.emotions import TONES
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from affectlens.datasets import Corpus, Message, Record
from affectlens.probes import Labels, Numbers, NumberSweep, Sweep, numbers_of, sweep, target_of
from affectlens.probes.folds import assign_folds, group_ids
from affectlens.probes.targets import available, renamed
from tests.geometry.synthetic import SITES, planted


def rated(n_groups: int = 16, *, test: bool = True, noise: float = 0.3) -> tuple[Any, list[float]]:
    """A store of two sites that hold a number, and the number of each row."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(n_groups * 4, generator=generator) * 2 + 3
    axis = torch.randn(2, 1, 12, generator=generator)
    x = y[None, :, None] * axis + noise * torch.randn(2, len(y), 12, generator=generator)
    groups = [f"s{i // 4:02d}" for i in range(len(y))]
    splits = ["test" if test and i // 4 % 4 == 3 else "fit" for i in range(len(y))]
    labels = {"group": groups, "split": splits, "theme": ["a" if v > 3 else "b" for v in y]}
    store = ActivationStore.of(dict(zip(SITES, x, strict=True)), labels, position="mean:text")
    return store, y.tolist()


def test_a_sweep_of_numbers_equals_sklearn() -> None:
    store, y = rated()
    found = sweep(store, target=Numbers("valence", y), penalties=(1e-4, 1e-2, 1.0), draws=20)
    assert isinstance(found, NumberSweep) and found.held_out == "test split"
    test = np.array(store.column("split")) == "test"
    folds = assign_folds(group_ids(np.array(store.column("scenario"))[~test]), 5, seed=0).numpy()
    truth = np.array(y)
    for i, site in enumerate(SITES):
        x = store.to_numpy(site).astype(np.float64)
        errors = []
        for c in found.penalties:
            missed = 0.0
            for fold in range(5):
                a, b = x[~test][folds != fold], x[~test][folds == fold]
                scaler = StandardScaler().fit(a)
                model = Ridge(alpha=1 / c).fit(scaler.transform(a), truth[~test][folds != fold])
                missed += (
                    (model.predict(scaler.transform(b)) - truth[~test][folds == fold]) ** 2
                ).sum()
            errors.append(missed)
        r2 = 1 - np.array(errors) / ((truth[~test] - truth[~test].mean()) ** 2).sum()
        np.testing.assert_allclose(found.cv_r2[i], r2, atol=1e-4)
        assert found.penalty[i] == found.penalties[int(np.argmin(errors))]
        scaler = StandardScaler().fit(x[~test])
        model = Ridge(alpha=1 / found.penalty[i]).fit(scaler.transform(x[~test]), truth[~test])
        theirs = model.predict(scaler.transform(x[test]))
        np.testing.assert_allclose(found.held.outputs[i, :, 0], theirs, atol=1e-3)
        np.testing.assert_allclose(
            found.predict(store.to_torch(site), site)[test], theirs, atol=1e-3
        )
        assert found.scores["r2"][i] == pytest.approx(r2_score(truth[test], theirs), abs=1e-4)


def test_without_a_test_split_numbers_are_scored_by_the_outer_folds() -> None:
    store, y = rated(test=False)
    found = sweep(store, target=Numbers("valence", y), folds=4, draws=10)
    assert found.held_out == "nested cross-validation" and len(found.held) == len(y)
    assert float(found.scores["r2"].min()) > 0.8
    shuffled = [y[i] for i in torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    nothing = sweep(store, target=Numbers("valence", shuffled), folds=4, draws=10)
    assert float(nothing.scores["r2"].max()) < 0.1


def test_numbers_save_and_load(tmp_path: Any) -> None:
    store, y = rated()
    found = sweep(store, target=Numbers("valence", y), draws=10)
    found.save(tmp_path / "n.safetensors")
    again = NumberSweep.load(tmp_path / "n.safetensors")
    assert again.to_dict() == found.to_dict() and again.best == found.best
    assert torch.equal(again.weights, found.weights) and again.provenance == found.provenance
    assert "pearson" in repr(again) and len(again.table_rows()) == 6
    with pytest.raises(MismatchError, match="number_sweep, not a sweep"):
        Sweep.load(tmp_path / "n.safetensors")
    with pytest.raises(ArtefactError, match="no file"):
        NumberSweep.load(tmp_path / "none.safetensors")


def test_any_column_of_a_store_can_be_read_and_grouped_by() -> None:
    store, _ = rated()
    found = sweep(store, target="theme", group="group", draws=10)
    assert found.classes == ("a", "b") and found.target == "theme"
    assert found.provenance.parameters["target"] == "theme"
    assert float(found.accuracy.min()) > 0.8
    with pytest.raises(UnknownNameError, match=r"target in this store.*corpus.*'vallence'"):
        sweep(store, target="vallence")
    with pytest.raises(UnknownNameError, match="column to group by 'shard'"):
        sweep(store, target="theme", group="shard")
    every = ["one"] * len(store)
    with pytest.raises(DataError, match="outside it"):
        sweep(store, target="theme", group=every)


def test_held_out_rows_give_the_accuracy_and_its_interval() -> None:
    store = planted(n_scenarios=16, content=0.2, noise=0.6)[0]
    found = sweep(store, draws=50)
    np.testing.assert_allclose(found.scores["accuracy"], found.accuracy, atol=1e-6)
    np.testing.assert_allclose(found.scores.interval("accuracy"), found.ci, atol=1e-6)
    assert found.held is not None and found.held.classes == TONES


def records(values: list[Any], emotion: str | None = None) -> Corpus:
    made = [
        Record(f"r{i}", (Message("text", f"text {i}"),), emotion, None, f"g{i}", "all", "fit",
               {"rating": value} if value is not None else {})
        for i, value in enumerate(values)
    ]  # fmt: skip
    return Corpus("mine", "texts", tuple(made))


def test_targets_come_from_a_corpus_by_record() -> None:
    corpus = records([1, "2.5", None, 4.0])
    found = target_of(corpus, "rating", ids=["r3", "r0", "r0", "r2"])
    assert isinstance(found, Numbers) and found.values == [4.0, 1.0, 1.0, None]
    words = target_of(records(["hot", "cold", "hot"]), "rating")
    assert isinstance(words, Labels) and words.classes == ("cold", "hot")
    assert "rating" in available(corpus)
    short = renamed(words, {"hot": "warm", "cold": "warm2"})
    assert short.classes == ("warm2", "warm") and short.values == ["warm", "warm2", "warm"]


def test_unfit_targets_are_refused_in_a_sentence() -> None:
    store, y = rated()
    cases = [
        (lambda: target_of(records([1, "hot"]), "rating"), "number in some records and 'hot'"),
        (lambda: target_of(records([1, 2]), "raing"), "Unknown target in corpus mine 'raing'"),
        (lambda: numbers_of(records(["a", "b"]), "rating"), "is text .a, b., where numbers"),
        (lambda: target_of(records(["a", "a"]), "rating"), "two different classes"),
        (lambda: Numbers("v", [1.0, math.nan]), "NaN or infinite"),
        (lambda: Numbers("v", [1.0, None, 1.0]), "only the value 1"),
        (lambda: sweep(store, target=Numbers("v", y[:5])), "5 values for 64 rows"),
        (
            lambda: sweep(store, target=Numbers("v", y), probe="logistic"),
            "v is a number, and the probe logistic reads classes; choose ridge",
        ),
        (lambda: renamed(Labels("l", ["a", "b"], ("a", "b")), {"c": "d"}), "label of l 'c'"),
    ]
    for work, sentence in cases:
        with pytest.raises((DataError, UnknownNameError), match=sentence) as caught:
            work()
        assert "\n" not in str(caught.value)


def test_a_test_split_without_values_is_refused() -> None:
    store, y = rated()
    splits = store.column("split")
    values = [None if s == "test" else v for s, v in zip(splits, y, strict=True)]
    with pytest.raises(DataError, match="test split has no row with valence"):
        sweep(store, target=Numbers("valence", values))


def test_a_class_that_some_fold_would_lack_is_named() -> None:
    store, _ = rated()
    values = ["rare" if i < 2 else "a" if i % 2 else "b" for i in range(len(store))]
    with pytest.raises(DataError, match="Class 'rare' of mood has 2 fitting rows in 1 groups"):
        sweep(store, target=Labels("mood", values, ("a", "b", "rare")))


def test_a_site_that_is_the_same_in_all_rows_is_refused_but_for_the_embeddings() -> None:
    store, _ = rated()
    labels = {name: store.column(name) for name in ("group", "split", "theme")}
    flat = torch.ones(len(store), 12)
    for site in (Site(0, "resid_pre"), Site(1, "resid_mid")):
        wrong = ActivationStore.of({site: flat, SITES[1]: store.to_torch(SITES[1])}, labels)
        if site.kind == "resid_pre":
            assert float(sweep(wrong, target="theme", draws=5).accuracy[0]) < 0.8
        else:
            with pytest.raises(DataError, match=r"resid_mid at mean:reply are the same"):
                sweep(wrong, target="theme", draws=5)
