from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from affectlens.activations import ActivationStore
from affectlens.core.emotions import EMOTIONS, TONES
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError
from affectlens.core.places import Site
from affectlens.probes import PROBES, ProbeKind, Sweep, sweep
from affectlens.probes.folds import assign_folds, group_ids
from tests.geometry.synthetic import SITES, planted

LABELS = ("emotion", "valence", "group", "split")


def _relabelled(store: ActivationStore, **changes: list[str]) -> ActivationStore:
    labels = {name: store.column(name) for name in LABELS}
    arrays = {site: store.to_torch(site) for site in store.sites}
    return ActivationStore.of(arrays, {**labels, **changes}, position="last", design="elicited")


def _store(**options: Any) -> ActivationStore:
    return planted(n_scenarios=16, content=0.2, noise=0.2, **options)[0]


def test_planted_emotions_are_read_at_every_site() -> None:
    found = sweep(_store())
    assert found.sites == SITES and found.classes == TONES
    assert found.held_out == "test split"
    assert float(found.accuracy.min()) > 0.8
    assert found.counts == {"fit": 12 * 21, "held_out": 4 * 21}
    assert found.majority == pytest.approx(1 / 7)
    assert bool((found.ci[:, 0] <= found.accuracy).all() & (found.accuracy <= found.ci[:, 1]).all())
    assert bool((found.ci[:, 0] < found.ci[:, 1]).all())


@pytest.mark.parametrize("nested", [False, True])
def test_permuted_labels_give_chance(nested: bool) -> None:
    store = _store()
    accuracies = []
    for seed in range(4):
        order = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))
        labels = store.column("emotion")
        shuffled = _relabelled(store, emotion=[labels[i] for i in order])
        shuffled = shuffled.select(split="fit") if nested else shuffled
        found = sweep(shuffled, draws=10)
        assert found.held_out == ("nested cross-validation" if nested else "test split")
        accuracies.append(found.accuracy)
    assert float(torch.stack(accuracies).mean()) == pytest.approx(1 / 7, abs=0.05)


def test_the_final_probe_equals_sklearn() -> None:
    store = _store()
    found = sweep(store, draws=10)
    fit, test = store.select(split="fit"), store.select(split="test")
    for i, site in enumerate(SITES):
        scaler = StandardScaler().fit(fit.to_numpy(site).astype(np.float64))
        model = LogisticRegression(C=found.penalty[i], tol=1e-8, max_iter=10_000)
        model.fit(scaler.transform(fit.to_numpy(site)), fit.column("emotion"))
        x = test.to_numpy(site)
        logits = found.logits(torch.tensor(x), site)
        theirs = model.predict_proba(scaler.transform(x))
        order = [list(model.classes_).index(tone) for tone in TONES]
        np.testing.assert_allclose(logits.softmax(1), theirs[:, order], atol=2e-3)
        correct = np.array(TONES)[logits.argmax(1)] == np.array(test.column("emotion"))
        assert float(found.accuracy[i]) == pytest.approx(correct.mean())


def test_cross_validation_equals_sklearn_fold_by_fold() -> None:
    store = _store(signal=0.6)
    penalties = (0.003, 0.1)
    found = sweep(store, penalties=penalties, folds=4, draws=10)
    fit = store.select(split="fit")
    folds = assign_folds(group_ids(fit.column("scenario")), 4, seed=0).numpy()
    x, y = fit.to_numpy(SITES[0]).astype(np.float64), np.array(fit.column("emotion"))
    for i, c in enumerate(penalties):
        hits = 0
        for fold in range(4):
            inside, outside = folds != fold, folds == fold
            scaler = StandardScaler().fit(x[inside])
            model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
            model.fit(scaler.transform(x[inside]), y[inside])
            hits += (model.predict(scaler.transform(x[outside])) == y[outside]).sum()
        # Within one row: the folds' probes need not be as precise as the final ones.
        assert abs(float(found.cv_accuracy[0, i]) * len(y) - hits) <= 1.01


def test_nested_cross_validation_chooses_each_penalty_without_the_outer_fold() -> None:
    """Against a loop in plain sight that refits every outer and inner fold with sklearn."""
    store = planted(n_scenarios=6, content=0.3, noise=0.3, signal=0.7, d=10)[0].select(split="fit")
    penalties = (0.002, 0.05, 2.0)
    found = sweep(store, penalties=penalties, folds=3, draws=10)
    folds = assign_folds(group_ids(store.column("scenario")), 3, seed=0).numpy()
    x, y = store.to_numpy(SITES[0]).astype(np.float64), np.array(store.column("emotion"))

    def hits(train: np.ndarray, test: np.ndarray, c: float) -> int:
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
        model.fit(scaler.transform(x[train]), y[train])
        return int((model.predict(scaler.transform(x[test])) == y[test]).sum())

    right = 0
    for outer in range(3):
        inner = [
            sum(
                hits((folds != outer) & (folds != i), folds == i, c) for i in range(3) if i != outer
            )
            for c in penalties
        ]
        right += hits(folds != outer, folds == outer, penalties[int(np.argmax(inner))])
    assert abs(float(found.accuracy[0]) * len(y) - right) <= 1.01


def test_no_fold_mixes_a_scenario() -> None:
    """Whatever is fitted never sees a scenario that it is scored on, nor the test split."""
    seen: list[torch.Tensor] = []

    def spy(*args: Any, weight: torch.Tensor, **options: Any) -> Any:
        seen.append(weight)
        return PROBES["logistic"].fit(*args, weight=weight, **options)

    store = _store()
    with PROBES.adding(ProbeKind("spy", "notes what it is given", spy)):
        sweep(store, probe="spy", draws=10)
        sweep(store.select(split="fit"), probe="spy", draws=10)
    (flat, final, nested, _), splits = seen, np.array(store.column("split"))
    scenarios = np.array(store.column("scenario"))
    assert len(flat) == 5 and len(nested) == 5 + 10
    for weights, names in ((flat, scenarios), (nested, scenarios[splits == "fit"])):
        for weight in weights.numpy():
            used, left = set(names[weight > 0]), set(names[weight == 0])
            assert not used & left and len(used | left) == len(set(names))
    assert not (flat.numpy()[:, splits == "test"]).any()
    assert (final.numpy()[0] > 0).tolist() == (splits == "fit").tolist()
    # Every fitting scenario is left out exactly once.
    assert ((flat.numpy() == 0).sum(0) == np.where(splits == "test", 5, 1)).all()


def test_folds_are_whole_groups_of_even_number() -> None:
    groups = group_ids([f"s{i // 3}" for i in range(33)])
    folds = assign_folds(groups, 4, seed=0)
    per_fold = [len(set(groups[folds == f].tolist())) for f in range(4)]
    assert sorted(per_fold) == [2, 3, 3, 3]
    assert sum(per_fold) == len(set(groups.tolist()))
    assert not torch.equal(folds, assign_folds(groups, 4, seed=1))
    with pytest.raises(DataError, match="Cannot make 12 folds of 11"):
        assign_folds(groups, 12, seed=0)


def test_the_interval_is_a_bootstrap_over_scenarios_of_held_out_rows() -> None:
    """Drawn with torch's generator, as every sweep so far; the brute force draws row by row."""
    store = _store(signal=0.3)
    found = sweep(store, draws=200, seed=3)
    test = store.select(split="test")
    groups = group_ids(test.column("scenario")).numpy()
    truth, count = np.array(test.column("emotion")), groups.max() + 1
    drawn = torch.randint(count, (200, count), generator=torch.Generator().manual_seed(3)).numpy()
    for i, site in enumerate(SITES):
        said = np.array(TONES)[found.logits(torch.tensor(test.to_numpy(site)), site).argmax(1)]
        rows = [np.concatenate([np.flatnonzero(groups == g) for g in draw]) for draw in drawn]
        means = [(said == truth)[chosen].mean() for chosen in rows]
        np.testing.assert_allclose(found.ci[i], np.quantile(means, [0.025, 0.975]), atol=1e-6)


def test_the_best_site_is_not_chosen_on_held_out_rows() -> None:
    store = _store()
    x = {site: store.to_torch(site) for site in SITES}
    test = torch.tensor([s == "test" for s in store.column("split")])
    x[SITES[0]][~test] += 0.3 * torch.randn(int((~test).sum()), 24)  # worse to fit on
    x[SITES[1]][test] = torch.randn(int(test.sum()), 24)  # impossible to score on
    labels = {name: store.column(name) for name in LABELS}
    found = sweep(ActivationStore.of(x, labels, position="last"), draws=10)
    assert float(found.accuracy[0]) > float(found.accuracy[1]) + 0.3
    assert found.best == SITES[1]


def test_embeddings_are_a_baseline_not_a_layer() -> None:
    store = _store()
    arrays = {Site(0, "resid_pre"): store.to_torch(SITES[0]), SITES[1]: 0.01 * torch.randn(336, 24)}
    labels = {name: store.column(name) for name in LABELS}
    found = sweep(ActivationStore.of(arrays, labels), draws=10)
    figures = found.to_dict()
    assert figures["best_site"] == SITES[1].hook_name and figures["best_layer"] == 1
    assert figures["embeddings"] > 0.8 > figures["accuracy"]
    assert [row["site"] for row in figures["by_layer"]] == [s.hook_name for s in found.sites]
    assert sweep(store, draws=10).to_dict()["embeddings"] is None


def test_classes_can_be_chosen() -> None:
    found = sweep(_store(), classes=("anger", "fear"), sites="resid_post@1", draws=10)
    assert found.classes == ("anger", "fear") and found.sites == SITES[1:]
    assert found.weights.shape == (1, 2, 24)
    assert found.majority == 0.5
    assert sweep(planted(with_neutral=False)[0], draws=10).classes == EMOTIONS


def test_wrong_requests() -> None:
    store = _store()
    with pytest.raises(UnknownNameError, match="class"):
        sweep(store, classes=("anger", "joy"))
    with pytest.raises(DataError, match="two different classes"):
        sweep(store, classes=("anger",))
    with pytest.raises(DataError, match="above zero"):
        sweep(store, penalties=(0.0, 1.0))
    with pytest.raises(DataError, match="folds of 12 scenarios"):
        sweep(store, folds=13)
    mixed = ["fit" if i % 2 else "test" for i in range(len(store))]
    with pytest.raises(DataError, match="in the test split and outside it"):
        sweep(_relabelled(store, split=mixed))


def test_save_and_load(tmp_path: Path) -> None:
    found = sweep(_store(), draws=20)
    found.save(tmp_path / "s.safetensors")
    loaded = Sweep.load(tmp_path / "s.safetensors")
    assert loaded.to_dict() == found.to_dict()
    assert loaded.provenance == found.provenance and loaded.best == found.best
    assert loaded.penalties == found.penalties and loaded.penalty == found.penalty
    assert torch.equal(loaded.weights, found.weights) and torch.equal(loaded.bias, found.bias)
    from affectlens.core.artefact import read_tensors, write_tensors

    file = read_tensors(tmp_path / "s.safetensors")
    extra = {**file.extra, "classes": file.extra["classes"][:-1]}
    write_tensors(tmp_path / "bad.safetensors", file.tensors, file.provenance, extra)
    with pytest.raises(ArtefactError, match="do not fit"):
        Sweep.load(tmp_path / "bad.safetensors")
