"""Trees of emotions and similarity of layers and models: against scipy, and planted structure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry import Directions, emotion_tree, similarity

NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
SITES = (Site(0, "resid_post"), Site(1, "resid_post"))


def made(
    vectors: torch.Tensor, emotions: tuple[str, ...] = NAMES, kind: str = "resid_post"
) -> Directions:
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    sites = tuple(Site(layer, kind) for layer in range(len(vectors)))
    norms = vectors.norm(dim=-1)
    made_by = Provenance("directions", model_name=f"m{vectors.shape[-1]}")
    return Directions(emotions, sites, unit, norms, "group_centred", None, made_by)


def random(sites: int = 2, d: int = 16, seed: int = 0, n: int = 6) -> torch.Tensor:
    return torch.randn(sites, n, d, generator=torch.Generator().manual_seed(seed))


def test_a_tree_is_scipys() -> None:
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import pdist

    vectors = random()
    found = emotion_tree(made(vectors), SITES[1])
    distance = pdist(vectors[1].double().numpy(), "cosine")
    expected = linkage(distance, "average")
    np.testing.assert_allclose(found.joins, expected, atol=1e-6)
    assert found.cophenetic == pytest.approx(float(cophenet(expected, distance)[0]), abs=1e-6)


def test_planted_pairs_join_first() -> None:
    base = random(1, n=3)
    near = base + 0.1 * random(1, seed=1, n=3)
    vectors = torch.stack([base, near], dim=2).flatten(1, 2)  # a pair after a pair
    found = emotion_tree(made(vectors), SITES[0])
    assert set(found.groups(3)) == {NAMES[0:2], NAMES[2:4], NAMES[4:6]}
    assert len(found.groups(6)) == 6 and len(found.groups(1)) == 1
    with pytest.raises(DataError, match="no 7 groups"):
        found.groups(7)


def test_newick_holds_every_leaf_at_one_height() -> None:
    found = emotion_tree(made(random(), emotions=(*NAMES[:5], "it's")), SITES[0])
    text = found.newick()
    assert text.endswith(";") and text.count("(") == text.count(")") == 5
    assert "'it''s'" in text

    def heights(node: str) -> dict[str, float]:
        """Of every leaf below, counted from the node."""
        body, _, length = node.rpartition(":") if not node.endswith(")") else (node, "", "0")
        if not body.startswith("("):
            return {body: float(length)}
        inner, depth, start, parts = body[1:-1], 0, 0, []
        for i, letter in enumerate(inner):
            depth += (letter == "(") - (letter == ")")
            if letter == "," and depth == 0:
                parts.append(inner[start:i])
                start = i + 1
        parts.append(inner[start:])
        return {leaf: h + float(length or 0) for part in parts for leaf, h in heights(part).items()}

    told = heights(text.removesuffix(";"))
    assert len(told) == 6
    for height in told.values():
        assert height == pytest.approx(float(found.joins[-1, 2]), abs=1e-4)


def test_similarity_is_scipys_spearman() -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    first, second = random(), random(3, d=9, seed=5)
    found = similarity(made(first), made(second))
    assert found.r.shape == (2, 3) and found.names == ("m16", "m9")
    for i, j in itertools.product(range(2), range(3)):
        a, b = (pdist(v.double().numpy(), "cosine") for v in (first[i], second[j]))
        assert found.r[i, j] == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-6)


def test_its_p_counts_all_orders_of_the_emotions() -> None:
    from scipy.spatial.distance import pdist, squareform
    from scipy.stats import spearmanr

    first, second = random(1, n=4), random(1, seed=3, n=4)
    names = NAMES[:4]
    found = similarity(made(first, names), made(second, names))
    a = pdist(first[0].double().numpy(), "cosine")
    square = squareform(pdist(second[0].double().numpy(), "cosine"))
    rows = np.triu_indices(4, 1)
    dealt = [
        float(spearmanr(a, square[np.ix_(order, order)][rows]).statistic)
        for order in itertools.permutations(range(4))
    ]
    own = float(found.r[0, 0])
    assert found.p[0, 0] == pytest.approx(np.mean([r >= own - 1e-9 for r in dealt]))


def test_a_rotated_model_is_the_same_and_a_random_one_is_not() -> None:
    vectors = random(1, n=6)
    turn = torch.linalg.qr(random(1, d=16, seed=9, n=16)[0])[0]
    emotions = (*NAMES[3:], *NAMES[:3])  # another order of the same
    other = made((vectors @ turn)[:, [3, 4, 5, 0, 1, 2]], emotions)
    same = similarity(made(vectors), other)
    assert float(same.r[0, 0]) == pytest.approx(1.0) and float(same.p[0, 0]) < 0.01
    p = [
        float(similarity(made(random(1, seed=s)), made(random(1, seed=100 + s))).p[0, 0])
        for s in range(30)
    ]
    assert 0.3 < np.mean(p) < 0.7


def test_layer_against_layer() -> None:
    found = similarity(made(random(3)))
    np.testing.assert_allclose(found.r, found.r.T)
    np.testing.assert_allclose(np.diag(found.r), 1)


def test_what_cannot_be_compared() -> None:
    few = made(random(1, n=3), NAMES[:3])
    with pytest.raises(DataError, match="at least four emotions"):
        similarity(few)
    with pytest.raises(DataError, match="there is 1"):
        similarity(made(random(1)), made(random(1, n=4), ("awe", "envy", "trust", "fear")))
    with pytest.raises(DataError, match="no directions at resid_mid"):
        similarity(made(random(1)), kind="resid_mid")
    with pytest.raises(DataError, match="three emotions"):
        emotion_tree(made(random(1, n=2), NAMES[:2]), SITES[0])
