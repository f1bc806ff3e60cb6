"""Every probe against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from affectlens.core.errors import DataError, UnknownNameError
from affectlens.probes import PROBES, sweep
from affectlens.probes.estimators.ridge import fit_ridge
from tests.geometry.synthetic import SITES, planted

CS = (0.001, 0.1, 10.0)


def rows(n: int, d: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different sizes, one of them constant, and labels that depend on them."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, n, d, generator=generator) * torch.logspace(-1, 1, d) + 3
    x[..., 0] = 2.0
    y = (x[0, :, 1:] @ torch.randn(d - 1, classes, generator=generator)).argmax(-1)
    y[:classes] = torch.arange(classes)
    return x, y


@pytest.mark.parametrize(("n", "d", "classes"), [(60, 8, 3), (20, 40, 4), (40, 6, 2)])
def test_ridge_equals_sklearn(n: int, d: int, classes: int) -> None:
    x, y = rows(n, d, classes)
    weight = torch.ones(2, n)
    weight[1, n - n // 4 :] = 0  # a fold left out
    weight[1, : n // 2] = 2
    fit = fit_ridge(x, y, CS, n_classes=classes, weight=weight)
    assert fit.weights.shape == (2, 2, 3, classes, d) and bool(fit.converged.all())
    logits = fit.logits(x)
    for site in range(2):
        for resample in range(2):
            w = weight[resample].double().numpy()
            scaler = StandardScaler().fit(x[site].double(), sample_weight=w)
            scaled = scaler.transform(x[site].double())
            for i, c in enumerate(CS):
                theirs = RidgeClassifier(alpha=1 / c).fit(scaled, y, sample_weight=w)
                scores = theirs.decision_function(scaled)
                if classes == 2:  # one score, for the second class
                    ours = logits[site, resample, i] @ torch.tensor([-0.5, 0.5])
                else:
                    ours = logits[site, resample, i]
                    scores = scores - scores.mean(1, keepdims=True)
                np.testing.assert_allclose(ours, scores, atol=2e-3)


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


def test_a_probe_needs_rows_of_every_class_and_a_name_there_is() -> None:
    x, y = rows(20, 4, 3)
    with pytest.raises(DataError, match="each class"):
        fit_ridge(x, y, (1.0,), n_classes=3, weight=(y != 1).float()[None])
    with pytest.raises(DataError, match="NaN"):
        fit_ridge(torch.full_like(x, torch.nan), y, (1.0,), n_classes=3, weight=torch.ones(1, 20))
    with pytest.raises(UnknownNameError, match=r"probe 'logistc'.*logistic"):
        sweep(planted(n_scenarios=4)[0], probe="logistc")
    assert next(iter(PROBES)) == "logistic"
