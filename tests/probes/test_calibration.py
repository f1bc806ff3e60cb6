"""Calibration against scikit-learn, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from affectlens.core.errors import DataError
from affectlens.probes.calibration import CALIBRATIONS, conformal, quality
from affectlens.probes.calibration.base import linked


def overconfident(n: int, seed: int = 0, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores three times as sure as they may be: classes are drawn by a third of them."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * 1.5 * torch.randn(n, k, generator=generator)
    truth = torch.multinomial((scores / 3).softmax(1), 1, generator=generator)[:, 0]
    return scores, truth


def one_hot(y: torch.Tensor, k: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(y, k).double()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_temperature_is_the_best_there_is(link: str) -> None:
    scores, y = overconfident(2000)
    found = CALIBRATIONS["temperature"].fit(scores, one_hot(y), link, True)

    def loss(t: float) -> float:
        if link == "softmax":
            return float(torch.nn.functional.cross_entropy(scores.double() / t, y))
        return float(
            torch.nn.functional.binary_cross_entropy_with_logits(scores.double() / t, one_hot(y))
        )

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-8})
    assert found.temperature == pytest.approx(best.x, rel=1e-4)  # type: ignore[attr-defined]
    if link == "softmax":
        assert found.temperature == pytest.approx(3, rel=0.1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["temperature", "isotonic"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_calibration_improves_rows_it_has_not_seen(name: str, exclusive: bool) -> None:
    link = "softmax" if exclusive else "sigmoid"
    losses = {"none": [], name: []}  # type: ignore[var-annotated]
    for seed in range(5):
        scores, y = overconfident(400, seed)
        if not exclusive:
            y = torch.bernoulli((scores / 3).sigmoid(), generator=torch.Generator().manual_seed(9))
        truth = one_hot(y) if exclusive else y.double()
        for kind, seen in losses.items():
            fit = CALIBRATIONS[kind].fit(scores[:200], truth[:200], link, exclusive)
            p = fit.probabilities(scores[200:], link, exclusive)
            said = quality(p.numpy(), truth[200:].numpy(), range(200), exclusive=exclusive, draws=9)
            seen.append((said.log_loss, said.ece))
            if name == "temperature" and kind == name:
                assert p.argsort(1).equal(scores[200:].argsort(1))
    before, after = (np.mean(losses[kind], axis=0) for kind in ("none", name))
    assert after[0] < before[0] and after[1] < 0.7 * before[1]


def test_isotonic_equals_sklearn_and_knows_no_certainty() -> None:
    scores, y = overconfident(300)
    truth = one_hot(y)
    fit = CALIBRATIONS["isotonic"].fit(scores, truth, "softmax", True)
    new, _ = overconfident(50, seed=3)
    claims, theirs = linked(scores.double(), "softmax", True), []
    for k in range(4):
        curve = IsotonicRegression(y_min=1 / 302, y_max=301 / 302, out_of_bounds="clip")
        curve.fit(claims[:, k].numpy(), truth[:, k].numpy())
        theirs.append(curve.predict(linked(new.double(), "softmax", True)[:, k].numpy()))
    wanted = np.stack(theirs, 1)
    wanted /= wanted.sum(1, keepdims=True)
    ours = fit.probabilities(new.double(), "softmax", True)
    np.testing.assert_allclose(ours, wanted, atol=1e-9)
    assert float(ours.min()) > 0
    again = CALIBRATIONS["isotonic"].restore(fit.parts())
    assert again.probabilities(new, "softmax", True).equal(fit.probabilities(new, "softmax", True))


def test_quality_is_that_of_plain_loops() -> None:
    scores, y = overconfident(300)
    p = scores.softmax(1).double().numpy()
    groups = [f"g{i // 3}" for i in range(300)]
    found = quality(p, one_hot(y).numpy(), groups, bins=10, draws=300)
    assert found.log_loss == pytest.approx(log_loss(y.numpy(), p), rel=1e-6)

    def ece(rows: np.ndarray) -> float:
        total = 0.0
        for b in range(10):
            top = p[rows].max(1)
            here = rows[(top >= b / 10) & (top < (b + 1) / 10 + (b == 9))]
            if len(here):
                right = (p[here].argmax(1) == y.numpy()[here]).mean()
                total += len(here) / len(rows) * abs(right - p[here].max(1).mean())
        return total

    assert found.ece == pytest.approx(ece(np.arange(300)))
    from affectlens.core.statistics import times_drawn

    by_group = np.array([[i for i, g in enumerate(groups) if g == n] for n in np.unique(groups)])
    drawn = [
        ece(np.repeat(by_group, times.astype(int), axis=0).ravel())
        for times in times_drawn(100, 300, 0)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.ece_low, found.ece_high) == (pytest.approx(low), pytest.approx(high))
    assert sum(found.count) == 300 and len(found.claimed) == len(found.found) == len(found.low)
    alone = quality(p, one_hot(y).numpy(), ["g"] * 300)
    assert np.isnan(alone.ece_low) and np.isnan(alone.low).all()


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_label_sets_cover_as_often_as_asked_by_groups(coverage: float) -> None:
    """Rows of a group are nearly copies of each other, and the groups differ in size."""
    generator = torch.Generator().manual_seed(0)
    hits = []
    for _ in range(400):
        owner = torch.arange(31).repeat_interleave(torch.randint(1, 9, (31,), generator=generator))
        base = 2 * torch.randn(31, 4, generator=generator)
        scores = base[owner] + 0.1 * torch.randn(len(owner), 4, generator=generator)
        truth = torch.multinomial((scores / 2).softmax(1), 1, generator=generator)[:, 0]
        truth = truth[(owner[:, None] == owner).to(torch.int8).argmax(1)]  # one per group
        p = scores.softmax(1)
        seen = owner < 30
        fitted = conformal(p[seen], truth[seen], owner[seen].tolist())
        sets = fitted.sets(p[~seen], coverage)
        hits.append(float(sets.gather(1, truth[~seen, None]).double().mean()))
    mean, error = np.mean(hits), np.std(hits) / 20
    assert mean > coverage - 2 * error and mean < coverage + 1 / 31 + 3 * error


def test_label_sets_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    fitted = conformal(p, torch.tensor([0, 0, 0, 1]), ["a", "a", "b", "c"])
    torch.testing.assert_close(fitted.scores, torch.tensor([0.1, 0.4, 0.7, 0.8]).double())
    assert fitted.weights.tolist() == [0.5, 0.5, 1, 1] and fitted.groups == 3
    # Masses 1/8, 1/4, 1/2, 3/4 and a quarter at infinity.
    assert fitted.threshold(0.5) == pytest.approx(0.7)
    assert fitted.threshold(0.51) == pytest.approx(0.8)
    assert fitted.threshold(0.76) == float("inf")
    assert fitted.sets(p, 0.5).tolist() == [
        [True, False],
        [True, True],
        [True, True],
        [True, False],
    ]
    assert bool(fitted.sets(p, 0.9).all())
    with pytest.raises(DataError, match="between 0 and 1"):
        fitted.threshold(1.0)


def test_rows_that_cannot_calibrate() -> None:
    scores, y = overconfident(20)
    for name in ("temperature", "isotonic"):
        fit = CALIBRATIONS[name].fit
        with pytest.raises(DataError, match="Class 1 does not occur"):
            fit(scores, one_hot(torch.where(y == 1, 0, y)), "softmax", True)
        with pytest.raises(DataError, match="NaN"):
            fit(scores * torch.nan, one_hot(y), "softmax", True)
    with pytest.raises(DataError, match="class and group of every row"):
        conformal(scores.softmax(1), y, ["a"])
    with pytest.raises(DataError, match="give every row both"):
        quality(scores.numpy(), one_hot(y).numpy(), ["a"])
