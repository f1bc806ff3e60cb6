"""Scores against scikit-learn and scipy, intervals against draws made row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from affectlens.core.errors import DataError
from affectlens.core.statistics import times_drawn
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import LABEL_SCORES, NUMBER_SCORES, area_under_curve, scores

CLASSES = ("joy", "rage", "calm")


def labelled(n: int = 60, groups: int = 12, sites: int = 2, seed: int = 0) -> HeldOut:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (n,), generator=generator)
    # Rounded, so that there are ties, which count half.
    outputs = torch.randn(sites, n, 3, generator=generator).mul(2).round().div(2)
    outputs[0, torch.arange(n), truth] += 1.0
    names = [f"g{i % groups}" for i in range(n)]
    return HeldOut(tuple(map(str, range(n))), tuple(names), truth, outputs, CLASSES)


def numbered(n: int = 60, groups: int = 12, seed: int = 0) -> HeldOut:
    generator = torch.Generator().manual_seed(seed)
    truth = 100 + torch.randn(n, generator=generator)
    said = truth + torch.randn(2, n, generator=generator) * torch.tensor([[0.5], [3.0]])
    names = tuple(f"g{i % groups}" for i in range(n))
    return HeldOut(tuple(map(str, range(n))), names, truth, said[..., None], ())


def by_hand(held: HeldOut, site: int, rows: np.ndarray) -> dict[str, float]:
    """What scikit-learn and scipy make of some rows (as often as they are named)."""
    truth, outputs = held.truth.numpy()[rows], held.outputs[site].numpy()[rows]
    if not held.classes:
        said, truth = outputs[:, 0].astype(np.float64), truth.astype(np.float64)
        cov = np.cov(truth, said, bias=True)
        concord = 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (truth.mean() - said.mean()) ** 2)
        return {
            "pearson": float(stats.pearsonr(truth, said).statistic),
            "ccc": float(concord),
            "r2": float(metrics.r2_score(truth, said)),
        }
    said = outputs.argmax(1)
    chance = torch.tensor(outputs).double().softmax(1).numpy()
    present = [k for k in range(3) if 0 < (truth == k).sum() < len(truth)]
    areas = [metrics.roc_auc_score(truth == k, chance[:, k]) for k in present]
    recall = metrics.recall_score(truth, said, labels=range(3), average=None, zero_division=np.nan)
    return {
        "accuracy": float(metrics.accuracy_score(truth, said)),
        "macro_f1": float(metrics.f1_score(truth, said, average="macro")),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(truth, said)),
        "auroc": float(np.mean(areas)),
        **{f"recall:{name}": float(r) for name, r in zip(CLASSES, recall, strict=True)},
    }


@pytest.mark.parametrize("held", [labelled(), numbered()], ids=["labels", "numbers"])
def test_scores_and_intervals_equal_sklearn_on_every_draw(held: HeldOut) -> None:
    found = scores(held, draws=40, random=5)
    names = (*LABEL_SCORES, *(f"recall:{c}" for c in CLASSES)) if held.classes else NUMBER_SCORES
    assert found.names == names
    groups = np.array([int(name[1:]) for name in held.groups])
    times = times_drawn(12, 40, 5)  # numbered in order of appearance: g0, g1, …
    for site in range(2):
        whole = by_hand(held, site, np.arange(len(held)))
        drawn = [
            by_hand(held, site, np.repeat(np.arange(len(held)), row[groups].astype(int)))
            for row in times
        ]
        for name in names:
            assert found[name][site] == pytest.approx(whole[name], abs=1e-6)
            ends = np.nanquantile([one[name] for one in drawn], [0.025, 0.975])
            np.testing.assert_allclose(found.interval(name)[site], ends, atol=1e-6)


def test_areas_of_several_scores_equal_sklearn_on_weighted_rows() -> None:
    """Ties, groups of several rows, groups that a draw leaves out, one class per score."""
    random = np.random.default_rng(3)
    said = random.integers(0, 6, size=(2, 3, 80)) / 4
    own = random.random((2, 1, 80)) < np.array([0.1, 0.7])[:, None, None]
    index = random.integers(0, 25, size=80)
    times = times_drawn(25, 30, 1)
    found = area_under_curve(said, own, index, times)
    assert found.shape == (2, 3, 30)
    for (k, i, draw), area in np.ndenumerate(found):
        weight = times[draw][index]
        theirs = metrics.roc_auc_score(own[k, 0], said[k, i], sample_weight=weight)
        assert area == pytest.approx(theirs, abs=1e-9)


def test_the_confusion_is_that_of_sklearn() -> None:
    held = labelled()
    said = held.outputs[1].argmax(-1)
    np.testing.assert_array_equal(
        scores(held, draws=2).confusion[1], metrics.confusion_matrix(held.truth, said)
    )


def test_a_class_without_rows_has_no_recall_and_takes_no_part_in_means() -> None:
    held = labelled()
    rows = [i for i, y in enumerate(held.truth.tolist()) if y != 2]
    kept = HeldOut(
        tuple(held.ids[i] for i in rows),
        tuple(held.groups[i] for i in rows),
        held.truth[rows],
        held.outputs[:, rows],
        CLASSES,
    )
    found = scores(kept, draws=5)
    assert np.isnan(found["recall:calm"]).all()
    with pytest.warns(UserWarning, match="not in y_true"):
        theirs = metrics.balanced_accuracy_score(kept.truth, kept.outputs[0].argmax(-1))
    assert found["balanced_accuracy"][0] == pytest.approx(theirs)


def test_one_group_has_no_interval() -> None:
    held = labelled(groups=1)
    found = scores(held, draws=5)
    assert np.isnan(found.low).all() and not np.isnan(found["accuracy"]).any()


def test_intervals_cover_at_the_nominal_rate() -> None:
    """Groups with a common chance of being right: 95 % of intervals hold the true accuracy."""
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(200):
        chance = 0.5 + 0.4 * (torch.rand(60, generator=generator) - 0.5)
        right = torch.rand(60, 5, generator=generator) < chance[:, None]
        outputs = torch.stack([right.float().flatten(), (~right).float().flatten()], dim=-1)
        names = tuple(f"g{i // 5}" for i in range(300))
        held = HeldOut(
            names, names, torch.zeros(300, dtype=torch.long), outputs[None], ("yes", "no")
        )
        low, high = scores(held, draws=200).interval("accuracy")[0]
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / 200 <= 0.985


def test_pairs_are_of_the_same_rows() -> None:
    held = labelled()
    found = held.compare(0, held, 1, draws=500)
    good = held.good().double()
    assert found.mean == pytest.approx(float(good[0].mean() - good[1].mean()))
    assert found.low <= found.mean <= found.high and found.p < 0.05
    assert held.compare(1, held, 1, draws=50).p == 1.0
    with pytest.raises(DataError, match="same held-out rows"):
        held.compare(0, labelled(seed=1), 0, draws=10)
