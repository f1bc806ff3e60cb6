"""Components of emotion means: against scikit-learn, permutations by hand, what is planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from affectlens.activations import ActivationStore
from affectlens.core.emotions import EMOTIONS, VAD
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry import emotion_components
from affectlens.geometry.components import correlation, permutation_p
from tests.geometry.synthetic import planted

SITE = Site(2, "resid_post")
QUICK = {"permutations": 60, "draws": 200}


def grid(signal: float, groups: int = 20, d: int = 12, seed: int = 0) -> torch.Tensor:
    """Valence along the first dimension, arousal along the second, content in all."""
    generator = torch.Generator().manual_seed(seed)
    vad = torch.tensor([VAD[e] for e in EMOTIONS])
    rows = torch.randn(groups, len(EMOTIONS), d, generator=generator)
    rows[..., 0] += 4 * signal * vad[:, 0]
    rows[..., 1] += 2 * signal * vad[:, 1]
    return rows + 5 * torch.randn(groups, 1, d, generator=generator)


def test_they_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rows = grid(1.0)
    found = emotion_components({SITE: rows}, SITE, **QUICK)
    pca = PCA(5).fit(rows.mean(0).numpy())
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, atol=1e-5)
    expected = np.abs(pca.transform(rows.mean(0).numpy()))
    np.testing.assert_allclose(np.abs(found.points), expected, atol=1e-4)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(5), atol=1e-5)


def test_planted_valence_is_found_beside_its_interval() -> None:
    found = emotion_components({SITE: grid(1.5)}, SITE, **QUICK)
    first = {n.dimension: n for n in found.norms if n.component == 1}
    valence = first["valence"]
    assert valence.r > 0.97 and valence.low <= valence.r <= valence.high and valence.p < 0.05
    assert valence.high - valence.low < 0.1
    second = next(n for n in found.norms if n.component == 2 and n.dimension == "arousal")
    assert abs(second.r) > 0.6
    assert float(found.p[0]) == pytest.approx(1 / 61)
    assert float(found.explained[0]) > float(found.chance[0]) + 0.2


def test_without_emotions_p_is_uniform() -> None:
    few = {"permutations": 39, "draws": 2}
    found = [emotion_components({SITE: grid(0.0, 6, 8, s)}, SITE, **few) for s in range(40)]
    p = [float(one.p[0]) for one in found]
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.array(p) <= 0.1) <= 0.25


def test_labels_are_dealt_within_groups() -> None:
    """Two groups of three emotions: all 36 ways of dealing, by hand."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(2, 3, 5, generator=generator)
    found = emotion_components(
        {SITE: rows}, SITE, emotions=("anger", "fear", "happiness"), permutations=4000, draws=2
    )
    centred = rows - rows.mean(1, keepdim=True)
    orders = list(itertools.permutations(range(3)))
    tops = [
        float(torch.linalg.svdvals((centred[0, list(a)] + centred[1, list(b)]) / 2)[0]) ** 2
        for a in orders
        for b in orders
    ]
    own = float(torch.linalg.svdvals(centred.mean(0))[0]) ** 2
    exact = np.mean([top >= own - 1e-6 for top in tops])
    assert float(found.p[0]) == pytest.approx(exact, abs=0.03)


def test_the_neutral_subspace_is_taken_out() -> None:
    store, _ = planted(signal=1.0, noise=0.2, content=3.0)
    site = store.sites[0]
    plain = emotion_components(store, site, **QUICK)
    clean = emotion_components(store, site, clean=True, **QUICK)
    neutral = store.to_torch(site)[
        torch.tensor([label == "neutral" for label in store.column("emotion")])
    ].double()
    _, _, axes = torch.linalg.svd(neutral - neutral.mean(0), full_matrices=False)
    basis = axes[: clean.removed]
    assert clean.removed > 0 == plain.removed
    assert float((clean.axes.double() @ basis.T).abs().max()) < 1e-5
    assert float((plain.axes.double() @ basis.T).abs().max()) > 1e-2
    elsewhere = emotion_components(store, site, clean=store, **QUICK)  # another store's rows, all
    assert elsewhere.removed > 0


@pytest.mark.parametrize("n", [5, 12])
def test_permutation_p_is_scipys(n: int) -> None:
    from scipy.stats import pearsonr, permutation_test

    generator = np.random.default_rng(1)
    x = generator.normal(size=n)
    y = x + 1.5 * generator.normal(size=n)
    expected = permutation_test(
        (y,),
        lambda dealt: abs(pearsonr(x, dealt).statistic),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=2000,
        rng=np.random.default_rng(2),
    )
    assert correlation(x, y) == pytest.approx(pearsonr(x, y).statistic)
    assert permutation_p(x, y) == pytest.approx(expected.pvalue, abs=1e-9 if n == 5 else 0.03)
    assert np.isnan(permutation_p(x, np.ones(n)))


def test_labels_without_norms() -> None:
    names = ("awe", "envy", "trust", "calm")
    rows = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = {"group": [f"g{g}" for g in range(5) for _ in names], "emotion": list(names) * 5}
    store = ActivationStore.of({SITE: rows.flatten(0, 1)}, labels)
    assert emotion_components(store, SITE, **QUICK).norms == ()
    own = {"awe": (1.0, 0.0, 0.0), "envy": (-1.0, 0.0, 0.1), "calm": (0.2, -1.0, 0.0)}
    told = emotion_components(store, SITE, norms=own, **QUICK).norms
    assert {n.emotions for n in told} == {3}


def test_too_few_emotions() -> None:
    rows = torch.randn(4, 2, 6)
    with pytest.raises(DataError, match="three emotions or more"):
        emotion_components({SITE: rows}, SITE, emotions=("anger", "fear"))
