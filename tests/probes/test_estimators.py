"""Every kind of probe against scikit-learn's own, or against the same in plain sight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from affectlens.core.errors import DataError, UnknownNameError
from affectlens.probes import PROBES, sweep
from affectlens.probes.estimators.attention import AttentionFit, fit_attention
from affectlens.probes.estimators.descent import Descent
from affectlens.probes.estimators.difference_of_means import (
    fit_difference_of_means,
    solve_difference,
)
from affectlens.probes.estimators.lda import fit_lda, solve_lda
from affectlens.probes.estimators.mlp import MLPFit, fit_mlp
from affectlens.probes.estimators.moments import row_moments
from affectlens.probes.estimators.one_vs_rest import fit_one_vs_rest
from affectlens.probes.estimators.ridge import fit_ridge, solve_ridge
from tests.geometry.synthetic import SITES, planted

CS = (0.001, 0.1, 10.0)
SHAPES = [(60, 8, 3), (20, 40, 4), (40, 6, 2)]


def rows(n: int, d: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different sizes, one of them constant, and labels that depend on them."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-1, 1, d) + 3
    x[..., 0] = 2.0
    y = (x[0, :, 1:] @ torch.randn(d - 1, classes, generator=generator).double()).argmax(-1)
    y[:classes] = torch.arange(classes)
    y[n // 2 : n // 2 + classes] = torch.arange(classes)
    return x, y


def weights(n: int) -> torch.Tensor:
    """All rows; and a fold left out, some rows counting twice."""
    weight = torch.ones(2, n)
    weight[1, n - n // 4 :] = 0
    weight[1, : n // 2] = 2
    return weight


def each(n: int, x: torch.Tensor) -> Any:
    """Site, resample, rows repeated by weight, and the scaler of them."""
    weight = weights(n)
    for site in range(2):
        for resample in range(2):
            index = np.repeat(np.arange(n), weight[resample].int())
            own = x[site].numpy()[index]
            yield site, resample, index, own, StandardScaler().fit(own)


def centred(scores: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:  # scikit-learn has one score of two classes
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    return scores - scores.mean(1, keepdims=True)


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_ridge_of_classes(n: int, d: int, classes: int) -> None:
    x, y = rows(n, d, classes)
    fit = fit_ridge(x, y, CS, n_classes=classes, weight=weights(n))
    assert fit.weights.shape == (2, 2, 3, classes, d) and bool(fit.converged.all())
    logits = fit.logits(x)
    for site, resample, index, own, scaler in each(n, x):
        for i, c in enumerate(CS):
            theirs = RidgeClassifier(alpha=1 / c).fit(scaler.transform(own), y[index])
            scores = centred(theirs.decision_function(scaler.transform(x[site])))
            if classes == 2:
                scores = 2 * scores  # theirs is of one target, ours of two opposite ones
            np.testing.assert_allclose(logits[site, resample, i], scores, atol=1e-6)


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_ridge_of_numbers(n: int, d: int, classes: int) -> None:
    x, _ = rows(n, d, classes)
    target = torch.stack([x[0, :, 1:].sum(1), x[1, :, 1:4].prod(1)], dim=1)
    fit = fit_ridge(x, target, CS, n_classes=2, weight=weights(n))
    said = fit.logits(x)
    for site, resample, index, own, scaler in each(n, x):
        for i, c in enumerate(CS):
            theirs = Ridge(alpha=1 / c).fit(scaler.transform(own), target[index])
            wanted = theirs.predict(scaler.transform(x[site]))
            np.testing.assert_allclose(said[site, resample, i], wanted, rtol=1e-6, atol=1e-6)
    one = fit_ridge(x, target[:, 0], CS, n_classes=1, weight=weights(n))
    torch.testing.assert_close(one.weights, fit.weights[..., :1, :])


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_lda(n: int, d: int, classes: int) -> None:
    x, y = rows(n, d, classes)
    fit = fit_lda(x, y, CS, n_classes=classes, weight=weights(n))
    logits = fit.logits(x)
    for site, resample, index, own, scaler in each(n, x):
        for i, c in enumerate(CS):
            theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1 / (1 + c))
            theirs.fit(scaler.transform(own), y[index])
            scores = centred(theirs.decision_function(scaler.transform(x[site])))
            np.testing.assert_allclose(
                logits[site, resample, i], scores, rtol=1e-6, atol=1e-6 * abs(scores).max()
            )


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_difference_of_means(n: int, d: int, classes: int) -> None:
    x, y = rows(n, d, classes)
    fit = fit_difference_of_means(x, y, CS, n_classes=classes, weight=weights(n))
    assert fit.weights[:, :, 0].equal(fit.weights[:, :, 2])
    for site, resample, index, own, _ in each(n, x):
        theirs = NearestCentroid().fit(own, y[index])
        said = fit.logits(x)[site, resample, 0].argmax(1)
        assert said.tolist() == theirs.predict(x[site]).tolist()
        means = torch.tensor(theirs.centroids_)
        axes = fit.weights[site, resample, 0]
        torch.testing.assert_close(
            torch.nn.functional.normalize(axes[0] - axes[1], dim=0),
            torch.nn.functional.normalize(means[0] - means[1], dim=0),
        )


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_one_against_rest(n: int, d: int, classes: int) -> None:
    """Labels of which a row has any number, and classes, both as binary problems of theirs."""
    x, y = rows(n, d, classes)
    labels = (torch.rand(n, 4, generator=torch.Generator().manual_seed(1)) < 0.4).long()
    labels[:, 0] = (x[0, :, 1] > x[0, :, 1].median()).long()
    for told, target in ((y, torch.nn.functional.one_hot(y, classes)), (labels, labels)):
        many = target.shape[1]
        fit = fit_one_vs_rest(x, told, CS, n_classes=many, weight=weights(n), tol=1e-5)
        assert bool(fit.converged.all()) and fit.weights.shape == (2, 2, 3, many, d)
        said = fit.logits(x).sigmoid()
        for site, resample, index, own, scaler in each(n, x):
            for i, c in enumerate(CS):
                for k in range(many):
                    model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
                    model.fit(scaler.transform(own), target[index, k])
                    wanted = model.predict_proba(scaler.transform(x[site]))[:, 1]
                    np.testing.assert_allclose(said[site, resample, i, :, k], wanted, atol=2e-4)


def test_exact_probes_are_the_same_of_rows_that_stream_by() -> None:
    """In any order and any pieces; and of weights too many to be alike."""
    x, y = rows(60, 8, 3)
    offset = x + 1e4  # means far from zero must not cancel the variance
    weight = torch.rand(2, 60, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    target = torch.nn.functional.one_hot(y, 3).double()
    for w in (weights(60), weight):
        moments = row_moments(((offset[0, p], p) for p in order.split(7)), target, w)
        for solve, fit in (
            (solve_ridge, fit_ridge),
            (solve_lda, fit_lda),
            (solve_difference, fit_difference_of_means),
        ):
            streamed = solve(moments, torch.tensor(CS), True)
            whole = fit(offset[:1], y, CS, n_classes=3, weight=w)
            torch.testing.assert_close(streamed.weights, whole.weights, rtol=1e-6, atol=1e-8)
            near = fit(x[:1], y, CS, n_classes=3, weight=w)
            torch.testing.assert_close(whole.weights, near.weights, rtol=1e-5, atol=1e-7)


def rings(n: int = 240) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes that no line tells apart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, 6, generator=generator)
    return x, (x[0, :, 0] * x[0, :, 1] > 0).long()


def test_the_mlp_reads_what_no_line_does_and_each_problem_is_fitted_as_if_alone() -> None:
    x, y = rings()
    weight = torch.ones(2, len(y))
    weight[1, ::4] = 0
    descent = Descent(steps=250, rate=2e-2)
    options: dict[str, Any] = {"n_classes": 2, "descent": descent, "width": 16}
    fit = fit_mlp(x, y, (0.1, 10.0), weight=weight, **options)
    held = fit.logits(x)[0, 1, 1, ::4].argmax(-1) == y[::4]
    flat = PROBES["logistic"].fit(x, y, (10.0,), n_classes=2, weight=weight, tol=1e-3)
    line = flat.logits(x)[0, 1, 0, ::4].argmax(-1) == y[::4]
    assert float(held.float().mean()) > 0.85 > 0.65 > float(line.float().mean())
    alone = fit_mlp(x[:1], y, (10.0,), weight=weight[1:], **options)
    torch.testing.assert_close(alone.logits(x)[0, 0, 0], fit.logits(x)[0, 1, 1])
    restored = PROBES["mlp"].restore(fit.parts())
    assert isinstance(restored, MLPFit) and restored.logits(x).equal(fit.logits(x))


def test_the_mlp_is_a_plain_network_trained_by_plain_adam() -> None:
    from affectlens.probes.estimators.descent import drawn_rows
    from affectlens.probes.estimators.mlp import _begin  # the weights it begins with

    x, y = rings(40)
    descent, c = Descent(batch=8, steps=30, rate=1e-2), 0.5
    weight = torch.ones(1, 40)
    fit = fit_mlp(x[:1], y, (c,), n_classes=2, weight=weight, descent=descent, width=5)
    scaled = torch.tensor(StandardScaler().fit_transform(x[0].double())).float()
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    with torch.no_grad():
        for layer, seed in ((net[0], 0), (net[2], 1)):
            begin = _begin(layer.in_features, layer.out_features, (), seed)
            layer.weight.copy_(begin.T)
            layer.bias.zero_()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step, chosen in enumerate(drawn_rows(weight, descent)[:, 0]):
        rise, steps = 3, 30
        rate = (step + 1) / rise if step < rise else (
            0.5 * (1 + np.cos(np.pi * (step - rise) / (steps - rise)))
        )  # fmt: skip
        optimiser.param_groups[0]["lr"] = 1e-2 * rate
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(scaled[chosen]), y[chosen])
        loss = loss + sum(net[i].weight.square().sum() for i in (0, 2)) / (2 * c * 40)
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(fit.logits(x[:1])[0, 0, 0], net(scaled), rtol=1e-4, atol=1e-5)


def told_by_one_token(texts: int = 160) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token of each text is marked and carries the class; the others are noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(texts) % 3
    lengths = torch.randint(3, 9, (texts,), generator=generator)
    owner = torch.arange(texts).repeat_interleave(lengths)
    x = torch.randn(len(owner), 10, generator=generator)
    first = lengths.cumsum(0) - lengths
    marked = first + torch.randint(100, (texts,), generator=generator) % lengths
    x[:, 0] = 0.1 * x[:, 0]
    x[marked, 0] = 4.0
    x[marked, 1:4] = 2.0 * torch.nn.functional.one_hot(y, 3).float() + 0.3 * x[marked, 1:4]
    return x, owner, y


def test_attention_finds_the_token_that_tells() -> None:
    x, texts, y = told_by_one_token()
    weight = torch.ones(2, len(y))
    weight[1, ::4] = 0
    fit = fit_attention(x[None], y, (1.0,), texts=texts, n_classes=3, weight=weight)
    right = fit.logits(x[None], texts)[0, 1, 0].argmax(-1) == y
    means = torch.zeros(len(y), 10).index_add(0, texts, x) / torch.bincount(texts)[:, None]
    pooled = PROBES["logistic"].fit(means[None], y, (1.0,), n_classes=3, weight=weight, tol=1e-3)
    line = pooled.logits(means[None])[0, 1, 0].argmax(-1) == y
    assert float(right[::4].float().mean()) > 0.95 > float(line[::4].float().mean()) + 0.1
    shares = fit.shares(x[None], texts)[0, 0, 0]
    assert float(shares[x[:, 0] > 2].mean()) > 0.8
    torch.testing.assert_close(torch.zeros(len(y)).index_add(0, texts, shares), torch.ones(len(y)))
    # By hand, of one text; and a probe fitted beside others is the one fitted alone.
    own = texts == 5
    attended = (x[own] @ fit.query[0, 1, 0]).softmax(0) @ x[own]
    by_hand = fit.weights[0, 1, 0] @ attended + fit.bias[0, 1, 0]
    torch.testing.assert_close(fit.logits(x[None], texts)[0, 1, 0, 5], by_hand)
    alone = fit_attention(x[None], y, (1.0,), texts=texts, n_classes=3, weight=weight[1:])
    torch.testing.assert_close(alone.query[0, 0], fit.query[0, 1])
    restored = PROBES["attention"].restore(fit.parts())
    assert isinstance(restored, AttentionFit) and restored.query.equal(fit.query)


def test_attention_begins_as_a_probe_of_the_mean() -> None:
    """Without query and weights: after no step it is the mean, scored by nothing."""
    x, texts, y = told_by_one_token(30)
    nothing = Descent(batch=4, steps=0, rate=0.0)
    fit = fit_attention(
        x[None], y, (1.0,), texts=texts, n_classes=3, weight=torch.ones(1, 30), descent=nothing
    )
    count = torch.bincount(texts)[texts].float()
    torch.testing.assert_close(fit.shares(x[None], texts)[0, 0, 0], 1 / count)
    with pytest.raises(DataError, match="its tokens together"):
        fit_attention(
            x[None], y, (1.0,), texts=texts.flip(0), n_classes=3, weight=torch.ones(1, 30)
        )


def test_a_sweep_by_ridge_equals_sklearn() -> None:
    store = planted(n_scenarios=8, content=0.2, noise=0.4)[0]
    found = sweep(store, probe="ridge", penalties=(0.01, 1.0), draws=10)
    fit, test = store.select(split="fit"), store.select(split="test")
    for i, site in enumerate(SITES):
        scaler = StandardScaler().fit(fit.to_numpy(site).astype(np.float64))
        model = RidgeClassifier(alpha=1 / found.penalty[i])
        model.fit(scaler.transform(fit.to_numpy(site)), fit.column("emotion"))
        right = model.score(scaler.transform(test.to_numpy(site)), test.column("emotion"))
        assert float(found.accuracy[i]) == pytest.approx(right)
    assert found.provenance.parameters["probe"] == "ridge"


@pytest.mark.parametrize("name", [name for name in PROBES if name != "attention"])
def test_a_probe_needs_finite_rows_of_every_class(name: str) -> None:
    x, y = rows(20, 4, 3)
    fit = PROBES[name].fit
    with pytest.raises(DataError, match="each class"):
        fit(x, y, (1.0,), n_classes=3, weight=(y != 1).float()[None], tol=1e-3)
    with pytest.raises(DataError, match="NaN"):
        fit(torch.full_like(x, torch.nan), y, (1.0,), n_classes=3, weight=weights(20), tol=1e-3)


def test_targets_that_do_not_fit_are_refused() -> None:
    x, y = rows(20, 4, 3)
    with pytest.raises(UnknownNameError, match=r"probe 'logistc'.*logistic"):
        sweep(planted(n_scenarios=4)[0], probe="logistc")
    assert next(iter(PROBES)) == "logistic"
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_ridge(x, torch.full((20, 1), torch.nan), (1.0,), n_classes=1, weight=weights(20))
    with pytest.raises(DataError, match="0 or 1"):
        fit_one_vs_rest(x, torch.full((20, 2), 2.0), (1.0,), n_classes=2, weight=weights(20))
    never = torch.zeros(20, 2)
    never[::2, 0] = 1
    with pytest.raises(DataError, match="Label 1 is on none"):
        fit_one_vs_rest(x, never, (1.0,), n_classes=2, weight=weights(20))
    same = x.clone()
    same[:] = 1.0
    with pytest.raises(DataError, match="spread"):
        fit_lda(same, y, (1.0,), n_classes=3, weight=weights(20))


def test_a_linear_probe_is_restored_from_its_parts() -> None:
    x, y = rows(20, 4, 3)
    fit = fit_lda(x, y, CS, n_classes=3, weight=weights(20))
    again = PROBES["lda"].restore(fit.parts())
    assert again.logits(x).equal(fit.logits(x)) and bool(again.converged.all())
