from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from affectlens.core.errors import DataError
from affectlens.geometry.logistic import fit_logistic

CS = (0.001, 0.01, 0.1, 1.0, 10.0)


def _problem(
    n: int, d: int, classes: int, seed: int, sites: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes; features of very unlike scale and offset, as residual streams have."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = 0.7 * torch.randn(sites, classes, d, generator=generator)
    x = centres[:, y] + torch.randn(sites, n, d, generator=generator)
    x = x @ torch.randn(d, d, generator=generator) * torch.logspace(-1, 1.5, d)
    return x + 20 * torch.randn(d, generator=generator), y


def _sklearn(
    x: torch.Tensor,
    y: torch.Tensor,
    c: float,
    weight: torch.Tensor | None = None,
    standardise: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts in raw units, classes summing to zero."""
    rows = np.arange(len(x)) if weight is None else weight.numpy().nonzero()[0]
    used = None if weight is None else weight.numpy()[rows]
    model = LogisticRegression(C=c, tol=1e-10, max_iter=100_000)
    scaler = StandardScaler(with_mean=standardise, with_std=standardise)
    z = scaler.fit_transform(x[rows].double().numpy(), sample_weight=used)
    model.fit(z, y[rows].numpy(), sample_weight=used)
    coef, intercept = model.coef_, model.intercept_
    if standardise:
        coef = coef / scaler.scale_
        intercept = intercept - coef @ scaler.mean_
    if len(coef) == 1:
        coef, intercept = np.stack([-coef[0], coef[0]]) / 2, np.stack([-intercept, intercept]) / 2
        intercept = intercept.ravel()
    return coef - coef.mean(0), intercept - intercept.mean()


def _same(found: torch.Tensor, expected: np.ndarray, rel: float = 1e-3) -> None:
    assert tuple(found.shape) == expected.shape
    difference = np.linalg.norm(found.numpy() - expected)
    assert difference <= rel * np.linalg.norm(expected), difference / np.linalg.norm(expected)


@pytest.mark.parametrize(("n", "d"), [(120, 20), (60, 90)])  # more rows than features, and fewer
@pytest.mark.parametrize("classes", [2, 5])
def test_equals_sklearn(n: int, d: int, classes: int) -> None:
    x, y = _problem(n, d, classes, seed=n)
    fit = fit_logistic(x, y, CS, n_classes=classes, tol=1e-4)
    assert bool(fit.converged.all())
    assert fit.weights.shape == (2, 1, len(CS), classes, d)
    for site in range(2):
        for i, c in enumerate(CS):
            coef, intercept = _sklearn(x[site], y, c)
            _same(fit.weights[site, 0, i], coef)
            _same(fit.bias[site, 0, i], intercept, rel=5e-3)
            scale = StandardScaler().fit(x[site].double().numpy()).scale_
            _same(fit.weights[site, 0, i] * torch.tensor(scale), coef * scale)


def test_equals_sklearn_without_standardising() -> None:
    x, y = _problem(80, 12, 4, seed=1)
    x = x / 10
    fit = fit_logistic(x, y, (0.1, 1.0), n_classes=4, standardise=False, tol=1e-4)
    for i, c in enumerate((0.1, 1.0)):
        coef, intercept = _sklearn(x[1], y, c, standardise=False)
        _same(fit.weights[1, 0, i], coef)
        _same(fit.bias[1, 0, i], intercept, rel=5e-3)


def test_row_weights_are_resamplings() -> None:
    """Zero drops a row, two counts it twice; each resample is standardised by its own rows."""
    x, y = _problem(90, 15, 3, seed=2)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 3, (4, 90), generator=generator).float()
    weight[0] = (torch.arange(90) >= 30).float()
    fit = fit_logistic(x, y, (0.05, 0.5), n_classes=3, weight=weight, tol=1e-4)
    for resample in range(4):
        coef, intercept = _sklearn(x[0], y, 0.5, weight[resample])
        _same(fit.weights[0, resample, 1], coef)
        _same(fit.bias[0, resample, 1], intercept, rel=5e-3)


def test_the_intercept_is_not_penalised() -> None:
    """With a crushing penalty the weights vanish and the intercepts give the class frequencies."""
    x, _ = _problem(100, 5, 3, seed=3)
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    fit = fit_logistic(x, y, (1e-7,), n_classes=3, tol=1e-5)
    shares = fit.logits(x).softmax(-1)[0, 0, 0]
    torch.testing.assert_close(
        shares, torch.tensor([0.6, 0.3, 0.1]).expand(100, 3), rtol=0, atol=2e-3
    )


def test_a_penalty_per_site() -> None:
    x, y = _problem(60, 8, 3, seed=4)
    both = fit_logistic(x, y, (0.01, 1.0), n_classes=3, tol=1e-5)
    own = fit_logistic(x, y, torch.tensor([[1.0], [0.01]]), n_classes=3, tol=1e-5)
    torch.testing.assert_close(own.weights[0, 0, 0], both.weights[0, 0, 1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(own.weights[1, 0, 0], both.weights[1, 0, 0], rtol=1e-3, atol=1e-6)


def test_batching_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module("affectlens.geometry.logistic")
    x, y = _problem(60, 8, 3, seed=5, sites=5)
    whole = fit_logistic(x, y, CS, n_classes=3, tol=1e-5)
    monkeypatch.setattr(module, "_ELEMENTS_PER_CHUNK", 1)
    one_by_one = fit_logistic(x, y, CS, n_classes=3, tol=1e-5)
    torch.testing.assert_close(whole.weights, one_by_one.weights, rtol=1e-3, atol=1e-5)


def test_constant_features_and_copies_do_no_harm() -> None:
    x, y = _problem(60, 6, 3, seed=6)
    x = torch.cat([x, torch.full_like(x[..., :1], 3e4), x[..., :1]], dim=-1)
    fit = fit_logistic(x, y, (0.1,), n_classes=3, tol=1e-4)
    assert bool(fit.weights.isfinite().all())
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8))
    expected = reference.fit(x[0].double().numpy(), y).predict_proba(x[0].double().numpy())
    found = fit.logits(x)[0, 0, 0].softmax(-1)
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-3)


def test_rows_that_tell_nothing_give_the_class_shares() -> None:
    """As embeddings at one position are: all the same, but for rounding."""
    y = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    fit = fit_logistic(torch.full((1, 20, 5), 0.3), y, (0.01, 1.0), n_classes=3)
    assert bool(fit.converged.all())
    shares = fit.logits(torch.full((1, 20, 5), 0.3)).softmax(-1)
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]).expand_as(shares))


def test_many_resamples_are_fitted_as_one() -> None:
    """More ways to choose rows than are kept apart; every fit reads all rows, at its weights."""
    x, y = _problem(60, 5, 3, seed=8)
    weight = torch.randint(0, 3, (40, 60), generator=torch.Generator().manual_seed(1)).float()
    together = fit_logistic(x, y, (0.1,), n_classes=3, weight=weight, tol=1e-4)
    alone = fit_logistic(x, y, (0.1,), n_classes=3, weight=weight[7:8], tol=1e-4)
    _same(together.weights[:, 7], alone.weights[:, 0].numpy())


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y = _problem(30, 4, 3, seed=7)
    with pytest.raises(DataError, match="NaN"):
        fit_logistic(torch.full_like(x, torch.nan), y, (1.0,), n_classes=3)
    with pytest.raises(DataError, match="fewer folds or fewer classes"):
        fit_logistic(x, y, (1.0,), n_classes=3, weight=(y != 1).float()[None])
