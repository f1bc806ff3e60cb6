from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.core.artefact import Provenance
from affectlens.core.emotions import EMOTIONS, VAD
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry import Directions, emotion_map, vad_correlation

SITE = Site(3, "resid_post")


def _directions(centroids: torch.Tensor, emotions: tuple[str, ...] = EMOTIONS) -> Directions:
    norms = centroids.norm(dim=-1)
    return Directions(
        emotions,
        (SITE,),
        (centroids / norms[:, None])[None],
        norms[None],
        "group_centred",
        torch.ones(1, len(emotions)),
        Provenance("directions"),
    )


def test_the_map_is_the_principal_components_of_the_centroids() -> None:
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    centroids = torch.randn(6, 20)
    found = emotion_map(_directions(centroids), SITE)
    pca = PCA(2).fit(centroids.numpy())
    expected = pca.transform(centroids.numpy())
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, atol=1e-5)
    valence = np.array([VAD[e][0] for e in EMOTIONS])
    for axis in range(2):
        assert np.corrcoef(found.points[:, axis], valence)[0, 1] >= 0


def test_planted_coordinates_are_found() -> None:
    torch.manual_seed(1)
    vad = torch.tensor([VAD[e] for e in EMOTIONS])
    plane = torch.linalg.qr(torch.randn(30, 2))[0].T
    valence, arousal = vad[:, 0] - vad[:, 0].mean(), vad[:, 1] - vad[:, 1].mean()
    arousal = arousal - valence * (arousal @ valence) / (valence @ valence)
    centroids = 10 * valence[:, None] * plane[0] + 3 * arousal[:, None] * plane[1]
    correlation = vad_correlation(_directions(centroids), SITE)
    assert correlation["valence"][0] == pytest.approx(1, abs=1e-4)
    assert correlation["valence"][1] == pytest.approx(0, abs=1e-4)
    expected = np.corrcoef(vad[:, 1], arousal)[0, 1]
    assert abs(correlation["arousal"][1]) == pytest.approx(expected, abs=1e-4)


def test_too_few_emotions() -> None:
    with pytest.raises(DataError, match="at least three"):
        emotion_map(_directions(torch.eye(2), ("anger", "fear")), SITE)
    with pytest.raises(DataError, match="known for fewer than three"):
        vad_correlation(_directions(torch.randn(3, 4), ("awe", "envy", "fear")), SITE)
