"""Erasure: what the theorem says, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from affectlens.core.errors import DataError
from affectlens.geometry.leace import Eraser, fit_leace


def rows(n: int = 300, d: int = 8, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % k
    y[: n // 5] = 0  # one class is the largest
    mix = torch.randn(d, d, generator=generator)
    means = 2 * torch.randn(k, d, generator=generator)
    x = torch.randn(n, d, generator=generator) @ mix + means[y] + 5
    return x.double(), y


@pytest.mark.parametrize("d", [8, 320])
def test_no_linear_probe_beats_the_majority_on_the_fitted_rows(d: int) -> None:
    """With more dimensions than rows, too; before, every one reads the classes."""
    x, y = rows(d=d)
    erased = fit_leace(x, y)(x)
    counts = torch.bincount(y)
    read = LogisticRegression(C=0.01, max_iter=500, tol=1e-6)
    assert read.fit(x, y).score(x, y) > 0.8
    read.fit(erased, y)
    assert read.score(erased, y) == pytest.approx(float(counts.max() / len(y)))
    assert np.abs(read.coef_).max() < 0.01
    means = torch.stack([erased[y == k].mean(0) for k in range(3)])
    torch.testing.assert_close(means, means[:1].expand(3, -1), atol=1e-6, rtol=0)


def test_it_moves_rows_least_of_all_that_erase() -> None:
    """Of affine maps ``x - M (x - mean)`` with ``M Σ_xz = Σ_xz`` it has the least mean square."""
    x, y = rows(n=120, d=4, k=2)
    found = fit_leace(x, y)
    ours = (found(x) - x).square().sum(1).mean()
    centred = (x - x.mean(0)).numpy()
    cross = centred.T @ (np.eye(2)[y] - np.eye(2)[y].mean(0)) / len(x)
    axis = cross[:, 0]

    def moved(flat: np.ndarray) -> float:
        return float(((centred @ flat.reshape(4, 4).T) ** 2).sum(1).mean())

    held = {"type": "eq", "fun": lambda flat: flat.reshape(4, 4) @ axis - axis}
    best = minimize(moved, np.eye(4).ravel(), constraints=[held], options={"maxiter": 500})
    assert float(ours) == pytest.approx(best.fun, rel=1e-4)
    plain = Eraser.of_subspace(torch.tensor(axis)[None], x.mean(0))
    assert float((plain(x) - x).square().sum(1).mean()) > float(ours)
    assert found.rank == plain.rank == 1


def test_an_orthogonal_eraser_holds_the_projection_at_the_means() -> None:
    x, y = rows()
    directions = torch.randn(3, 8, dtype=torch.float64)
    directions[2] = directions[0] + directions[1]
    eraser = Eraser.of_subspace(directions, x.mean(0))
    assert eraser.rank == 2
    torch.testing.assert_close(
        eraser(x) @ directions.T, (x.mean(0) @ directions.T).expand(len(x), -1)
    )
    torch.testing.assert_close(eraser(x).mean(0), x.mean(0))
    assert fit_leace(x, y)(x.float()).dtype == torch.float32
    with pytest.raises(DataError, match="two classes"):
        fit_leace(x, torch.zeros(300, dtype=torch.long))
    with pytest.raises(DataError, match="NaN"):
        fit_leace(x * torch.nan, y)
    with pytest.raises(DataError, match="direction to erase"):
        Eraser.of_subspace(torch.zeros(1, 8), x.mean(0))
