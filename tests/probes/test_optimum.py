"""Every logistic fit of a sweep, fold by fold, is as good as scikit-learn's and says the same."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from affectlens.geometry.logistic import fit_logistic
from affectlens.probes.crossval import TOL

Array = np.ndarray


def objective(w: Array, b: Array, x: Array, y: Array, c: float) -> float:
    """scikit-learn's, of one weight vector per class."""
    scores = x @ w.T + b
    loss = (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).sum()
    return float(0.5 * (w**2).sum() * (2 if len(w) == 2 else 1) + c * loss)


def problem(n: int, d: int, k: int, signal: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features of unlike sizes, as residual streams have them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(k, (n,), generator=generator)
    mixing = torch.randn(d, d, generator=generator) * torch.logspace(0, -2, d)
    means = torch.randn(k, d, generator=generator) * signal
    x = (torch.randn(2, n, d, generator=generator) + means[y]) @ mixing
    return x * torch.logspace(-1, 2, d) + 5, y


PROBLEMS = [(300, 24, 7, 0.3), (60, 80, 4, 0.2), (400, 12, 2, 0.1), (200, 30, 3, 2.0)]
"""Rows, features, classes, signal: many classes, more features than rows, two classes, easy."""


def test_the_optimum_is_that_of_sklearn() -> None:
    for one in PROBLEMS:
        agree, total = compared(*one)
        assert agree >= 0.999 * total


def compared(n: int, d: int, k: int, signal: float) -> tuple[int, int]:
    """Rows of which both say the same, and all of them; objectives are compared on the way."""
    x, y = problem(n, d, k, signal, seed=n)
    penalties = (1e-4, 0.001, 0.03, 1.0)
    weight = torch.ones(3, n)
    weight[1, ::5] = 0  # a fold left out, and two
    weight[2, ::5] = weight[2, 1::5] = 0
    fits = fit_logistic(x, y, penalties, n_classes=k, weight=weight, tol=TOL)
    assert bool(fits.converged.all())
    said = fits.logits(x).argmax(-1)
    agree = total = 0
    for site in range(2):
        for fold in range(3):
            used = weight[fold].bool().numpy()
            rows, labels = x[site].double().numpy(), y.numpy()
            scaler = StandardScaler().fit(rows[used])
            z = scaler.transform(rows)
            for i, c in enumerate(penalties):
                model = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(
                    z[used], labels[used]
                )
                w, b = model.coef_, model.intercept_
                if k == 2:  # one weight vector: half of it for each class, with either sign
                    w, b = np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2
                best = objective(w, b, z[used], labels[used], c)
                mine = fits.weights[site, fold, i].double().numpy() * scaler.scale_
                bias = fits.bias[site, fold, i].double().numpy()
                bias = bias + fits.weights[site, fold, i].double().numpy() @ scaler.mean_
                ours = objective(mine, bias, z[used], labels[used], c)
                assert abs(ours - best) <= 1e-5 * best
                agree += int((said[site, fold, i].numpy() == model.predict(z)).sum())
                total += n
    return agree, total
