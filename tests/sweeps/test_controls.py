"""Every control against scikit-learn, a loop in plain sight, or made-up activations."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from affectlens.activations import ActivationStore
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.evaluation.naming import mask_feelings
from affectlens.probes import PROBES, Labels
from affectlens.probes.design import Design, make_design
from affectlens.sweeps.controls.control_task import control_design, memorised
from affectlens.sweeps.controls.description_length import code_length, portions
from affectlens.sweeps.controls.keywords import masked_corpus
from affectlens.sweeps.controls.permutation import OVER_SITES, permuted, plain_score
from affectlens.sweeps.controls.text_models import GRID, text_baseline
from tests.geometry.synthetic import planted

SITE = Site(1, "resid_post")


def lines(found: list[dict[str, Any]], control: str, measure: str, **where: str) -> list[float]:
    return [
        row["value"]
        for row in found
        if row["control"] == control
        and row["measure"] == measure
        and all(row[k] == v for k, v in where.items())
    ]


def design_of(store: ActivationStore, folds: int = 3) -> Design:
    labels = store.column("emotion")
    target = Labels("emotion", labels, tuple(dict.fromkeys(labels)))
    return make_design(target, store.column("split"), store.column("scenario"), folds, 0)


def test_majority_is_that_of_sklearn(whole: Any) -> None:
    _, found, (setting, *_) = whole
    design = setting.design
    y, fit = design.y.numpy(), design.fit.numpy()
    dummy = DummyClassifier().fit(y[fit][:, None], y[fit])
    (value,) = lines(found.controls, "majority", "accuracy", corpus="plain")
    assert value == pytest.approx(dummy.score(y[~fit][:, None], y[~fit]))


def test_bag_of_words_is_chosen_on_folds_and_scored_on_the_test_split(whole: Any) -> None:
    _, found, (setting, *_) = whole
    design = setting.design
    texts = np.array([r.text for r in setting.records])
    y, fit, fold = design.y.numpy(), design.fit.numpy(), design.fold.numpy()

    def right(train: np.ndarray, test: np.ndarray, c: float) -> float:
        words = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        ).fit(texts[train])
        model = LogisticRegression(C=c, max_iter=1000)
        model.fit(words.transform(texts[train]), y[train])
        return float((model.predict(words.transform(texts[test])) == y[test]).sum())

    hits = [sum(right(fit & (fold != f), fold == f, c) for f in range(3)) for c in GRID]
    best = GRID[int(np.argmax(hits))]
    (value,) = lines(found.controls, "bag_of_words", "accuracy", corpus="plain")
    assert value == pytest.approx(right(fit, ~fit, best) / (~fit).sum())


def test_nested_text_baselines_never_see_the_outer_fold(whole: Any) -> None:
    """Features note which texts they were fitted on; none of them is ever told about."""
    setting = whole[2][0]
    every = ["fit"] * len(setting.target.values)
    nested = make_design(setting.target, every, setting.groups, 3, 0)
    blind = replace(setting)
    blind.__dict__["design"] = nested
    scenario = {r.text: r.group for r in setting.records}
    fitted: list[set[str]] = []

    class Features:
        def fit_transform(self, texts: list[str]) -> Any:
            fitted.append({scenario[t] for t in texts})
            return self.transform(texts, mine=True)

        def transform(self, texts: list[str], *, mine: bool = False) -> Any:
            assert mine or fitted[-1].isdisjoint(scenario[t] for t in texts)
            return np.array([[float(len(t)), float("furious" in t)] for t in texts])

    found = text_baseline(blind, Features)
    assert len(fitted) == 3 + 3 and len(found) == len(every)
    assert float(found.good().mean()) > 0.6


def test_permuted_labels_keep_groups_and_splits() -> None:
    store = planted(n_scenarios=8)[0]
    design = design_of(store)
    random = np.random.default_rng(0)
    y = permuted(design, random)
    assert not torch.equal(y, design.y)
    groups = np.array(design.groups)
    for group in set(groups):
        mine = groups == group
        assert sorted(y[mine].tolist()) == sorted(design.y[mine].tolist())
    # Groups that show one label each change places whole.
    numbers = {g: i for i, g in enumerate(dict.fromkeys(design.groups))}
    two = torch.tensor([numbers[g] % 2 for g in design.groups])
    constant = replace(design, y=two, classes=design.classes[:2])
    moved = permuted(constant, random)
    for group in set(groups):
        assert len(set(moved[groups == group].tolist())) == 1
    for part in (design.fit, ~design.fit):
        assert sorted(moved[part].tolist()) == sorted(constant.y[part].tolist())


def test_p_of_labels_that_mean_nothing_is_uniform() -> None:
    """Twenty label sets at random; nested and with a test split."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 60, 8, generator=generator)
    groups = [f"g{i // 3}" for i in range(60)]
    found: list[float] = []
    for trial in range(20):
        order = torch.randperm(60, generator=generator)
        labels = [("a", "b", "c")[int(i) % 3] for i in order]
        splits = ["fit"] * 60 if trial % 2 else ["test" if i >= 39 else "fit" for i in range(60)]
        design = make_design(Labels("l", labels, ("a", "b", "c")), splits, groups, 3, trial)
        random = np.random.default_rng(trial)
        ridge = PROBES["ridge"]
        real = float(plain_score(x, design, 0.1, ridge)[0])
        null = [
            float(plain_score(x, replace(design, y=permuted(design, random)), 0.1, ridge)[0])
            for _ in range(19)
        ]
        found.append((1 + sum(one >= real for one in null)) / 20)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean([p <= 0.05 for p in found]) <= 0.2


def test_few_groups_do_not_beat_their_own_permutations() -> None:
    """Labels are only taken where every class lies in folds enough; so must other orders be."""
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    groups = [f"g{i}" for i in range(6)]
    below, trials, ridge = 0, 150, PROBES["ridge"]
    for trial in range(trials):
        labels = Labels("l", [("a", "b")[i % 2] for i in range(6)], ("a", "b"))
        for seed in range(trial * 1000, trial * 1000 + 500):
            try:
                design = make_design(labels, ["fit"] * 6, groups, 3, seed)
            except DataError:
                continue
            break
        x = torch.randn(1, 6, 4, generator=generator)
        orders = [permuted(design, random) for _ in range(19)]
        assert all(replace(design, y=y).spread for y in orders)
        real = float(plain_score(x, design, 0.1, ridge)[0])
        null = [float(plain_score(x, replace(design, y=y), 0.1, ridge)[0]) for y in orders]
        below += (1 + sum(one >= real - 1e-9 for one in null)) / 20 <= 0.05
    assert below / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_permutation_finds_what_is_there(whole: Any) -> None:
    _, found, (setting, *_) = whole
    rows = [
        r
        for r in found.controls
        if r["control"] == "permutation" and r["measure"] == "accuracy" and r["corpus"] == "plain"
    ]
    assert len(rows) == len(setting.sites) and min(r["p"] for r in rows) == pytest.approx(0.1)
    over = lines(found.controls, "permutation", OVER_SITES, corpus="plain")
    assert min(over) == pytest.approx(0.1)  # nine orders: none has a site as good as the best
    assert all(both >= r["p"] for both, r in zip(over, rows, strict=True))
    null = lines(found.controls, "permutation", "accuracy, permuted", corpus="plain")
    assert all(0.1 < value < 0.6 for value in null)


@pytest.mark.parametrize(("content", "least", "most"), [(20.0, 0.9, 1.0), (0.0, 0.0, 0.45)])
def test_a_probe_that_can_tell_groups_memorises_the_control_task(
    content: float, least: float, most: float, whole: Any
) -> None:
    """Rows full of their content can be learnt by heart: selectivity is near zero or below."""
    store = planted(n_scenarios=8, d=40, content=content, noise=0.3)[0]
    design = design_of(store)
    made = control_design(design, [f"{g}" for g in design.groups], seed=1)
    assert made is not None
    control, used = made
    labels: dict[str, set[int]] = {}
    for group, label in zip(design.groups, control.y.tolist(), strict=True):
        labels.setdefault(group, set()).add(label)
    assert all(len(one) == 1 for one in labels.values()) and bool(used.all())
    for group in labels:  # every group is fitted on whenever one of its rows is asked about
        mine = torch.tensor([g == group for g in design.groups])
        assert set(control.fold[mine].tolist()) == {0, 1, 2}
    if content:  # of one content all three events share a label, so content is of the event
        events = [f"{s}{v}" for s, v in zip(design.groups, store.column("valence"), strict=True)]
        found = control_design(design, events, seed=1)
        assert found is not None
        control, used = found
    x = store.to_torch(SITE)[None][:, design.rows]
    right = memorised(x, control, [1.0], whole[2][0])
    value = float(right[0][used].mean())
    assert least <= value <= most


def test_too_few_rows_of_a_word_are_said(whole: Any) -> None:
    _, found, _ = whole
    by_word = [r for r in found.controls if r["measure"] == "accuracy by word"]
    assert by_word and all(r["note"] for r in by_word)
    design = design_of(planted(n_scenarios=4)[0])
    assert control_design(design, list(range(len(design.y))), seed=0) is None


def test_description_length_is_the_sum_of_a_loop(whole: Any) -> None:
    setting = whole[2][0]
    store = planted(n_scenarios=16, d=12, content=0.2, noise=0.4)[0]
    design = design_of(store)
    x = store.to_torch(SITE)[design.rows]
    bits = float(code_length(x[None], design, torch.tensor([[0.1]]), setting)[0])
    sets = portions(design, setting.fitting.seed)
    sizes = [int(s.sum()) for s in sets]
    assert sizes == sorted(set(sizes)) and sizes[-1] == int(design.fit.sum())
    assert all(bool((b | ~a).all()) for a, b in itertools.pairwise(sets))
    k = len(design.classes)
    expected = sizes[0] * np.log2(k)
    for before, after in itertools.pairwise(sets):
        rows = x[before].double().numpy()
        scale = rows.std(0)
        model = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000)
        model.fit((rows - rows.mean(0)) / scale, design.y[before])
        new = after & ~before
        told = model.predict_log_proba((x[new].double().numpy() - rows.mean(0)) / scale)
        expected -= told[np.arange(len(told)), design.y[new]].sum() / np.log(2)
    assert bits == pytest.approx(expected, rel=1e-3)
    assert bits < sizes[-1] * np.log2(k)
    nothing = replace(design, y=design.y[torch.randperm(len(design.y))])
    assert float(code_length(x[None], nothing, torch.tensor([[0.01]]), setting)[0]) > bits


def test_static_embeddings_are_the_first_site(whole: Any) -> None:
    _, found, _ = whole
    (value,) = lines(found.controls, "static_embeddings", "accuracy", corpus="plain")
    assert value == pytest.approx(float(found.cells[0].sweep.accuracy[0]))


def test_the_untrained_model_has_other_weights_and_the_same_design(whole: Any) -> None:
    asked, found, (setting, *_) = whole
    values = lines(found.controls, "untrained", "accuracy", corpus="plain")
    assert len(values) == len(setting.sites)
    (folder,) = (asked.out / "stores").glob("*plain-untrained*")
    store = ActivationStore.open(folder)
    assert store.provenance.model != setting.store.provenance.model
    again = found.cells[0].sweep
    from affectlens.probes import sweep

    other = sweep(store, sites=again.sites, penalties=(0.01, 1.0), folds=3, draws=10)
    np.testing.assert_allclose(values, other.accuracy, atol=1e-6)


def test_zero_shot_is_what_the_recognition_task_finds(whole: Any) -> None:
    """The same question in the same two orders, asked text by text."""
    from affectlens.circuits.tasks.recognition import asked_about
    from affectlens.models.generation.likelihood import continuation_nll

    _, found, (setting, *_) = whole
    classes, model = list(setting.design.classes), setting.reader.model
    rows = [i for i in range(len(setting.records)) if bool(setting.design.held[i])]
    right, covered = [], []
    for i in rows:
        shares = []
        for order in (classes, classes[::-1]):
            (asked,) = asked_about(model, setting.records[i].text, [order], classes)
            nll = [continuation_nll(model, [p], [t])[0] * len(t) for p, t in asked]
            whole_p = np.exp(-np.array(nll))
            covered.append(whole_p.sum())
            shares.append(whole_p / whole_p.sum())
        right.append(np.mean(shares, 0).argmax() == int(setting.design.y[i]))
    (value,) = lines(found.controls, "zero_shot", "accuracy", corpus="plain")
    assert value == pytest.approx(np.mean(right))
    (coverage,) = lines(found.controls, "zero_shot", "coverage", corpus="plain")
    assert coverage == pytest.approx(np.mean(covered), rel=1e-3)


def test_masked_texts_are_read_by_probes_that_have_not_seen_them(whole: Any) -> None:
    asked, found, (setting, *_) = whole
    (plain,) = lines(found.controls, "keywords", "accuracy, as they are", corpus="plain")
    cell = found.cells[0]
    assert plain == pytest.approx(float(cell.sweep.accuracy[cell.best]))
    (folder,) = (asked.out / "stores").glob("*plain-masked*")
    store = ActivationStore.open(folder)
    said = cell.sweep.logits(store.to_torch(cell.sweep.best), cell.sweep.best).argmax(-1)
    truth = [cell.sweep.classes.index(label) for label in store.column("emotion")]
    (masked,) = lines(found.controls, "keywords", "accuracy, masked", corpus="plain")
    assert masked == pytest.approx(float((said == torch.tensor(truth)).float().mean()))
    held = {setting.records[i].id for i in range(len(setting.records)) if setting.design.held[i]}
    corpus, changed = masked_corpus(setting.texts.bare, held)
    assert corpus is not None and changed == len(corpus) == len(held)
    texts = {r.id: r.text for r in setting.texts.corpus}
    assert all(r.text == mask_feelings(texts[r.id]) != texts[r.id] for r in corpus)


def test_the_keyword_free_vignettes_are_read_by_the_same_probe(whole: Any) -> None:
    asked, found, _ = whole
    cell = found.cells[0]
    store = ActivationStore.open(next((asked.out / "stores").glob("*vignettes*")))
    assert set(store.column("emotion")) == set(cell.sweep.classes)
    said = cell.sweep.logits(store.to_torch(cell.sweep.best), cell.sweep.best).argmax(-1)
    truth = torch.tensor([cell.sweep.classes.index(label) for label in store.column("emotion")])
    (value,) = lines(found.controls, "keywords", "accuracy, vignettes", corpus="plain")
    assert value == pytest.approx(float((said == truth).float().mean()))


def test_of_numbers_controls_that_need_labels_are_left_out(numbers: Any) -> None:
    _, found, _ = numbers
    done = {r["control"] for r in found.controls if r["target"] == "intensity"}
    assert done == {
        "majority", "permutation", "surface", "bag_of_words", "char_ngrams", "static_embeddings",
        "untrained", "keywords",
    }  # fmt: skip
    own = [r for r in found.controls if r["target"] == "size" and r["measure"] == "vignettes"]
    assert own and "labels unlike" in own[0]["note"]
    constant = lines(found.controls, "majority", "pearson", target="intensity")
    assert np.isnan(constant).all()
