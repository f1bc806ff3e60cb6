"""How the emotions lie to each other: a map of them, and valence, arousal and dominance on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.display import Displayed
from affectlens.core.emotions import VAD
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry.directions import Directions

AXES: tuple[str, ...] = ("valence", "arousal", "dominance")


@dataclass(frozen=True, eq=False, repr=False)
class EmotionMap(Displayed):
    """Emotions on the plane of the first two principal axes of their centroids.

    Attributes:
        emotions: Along the axis ``emotion``.
        points: Coordinates, in the units of the activations.
        explained: Share of the centroids' variance along each axis.
        axes: The two unit vectors.
    """

    emotions: tuple[str, ...]
    points: Float[Tensor, "emotion 2"]
    explained: Float[Tensor, " 2"]
    axes: Float[Tensor, "2 d_model"]

    def brief(self) -> dict[str, object]:
        """Emotions, and the share of variance that the plane shows."""
        return {"emotions": len(self.emotions), "explained": f"{float(self.explained.sum()):.3f}"}

    def table_rows(self) -> list[dict[str, object]]:
        """Where each emotion lies."""
        points = self.points.tolist()
        return [
            {"emotion": e, "x": x, "y": y} for e, (x, y) in zip(self.emotions, points, strict=True)
        ]


def emotion_map(directions: Directions, site: Site | str) -> EmotionMap:
    """Principal component analysis of the centroids at one site.

    Where the emotions' valences are known, each axis is turned so that it rises with valence.

    Raises:
        DataError: If there are fewer than three emotions.
    """
    if len(directions.emotions) < 3:
        raise DataError("A map needs at least three emotions.")
    centroids = directions.centroid()[directions.site_index(site)]
    centred = centroids - centroids.mean(0)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    known = [i for i, emotion in enumerate(directions.emotions) if emotion in VAD]
    if known:
        valence = torch.tensor([VAD[directions.emotions[i]][0] for i in known])
        slope = (centred[known] @ axes.T * (valence - valence.mean())[:, None]).sum(0)
        axes = axes * torch.where(slope < 0, -1.0, 1.0)[:, None]
    explained = singular[:2].square() / singular.square().sum()
    return EmotionMap(directions.emotions, centred @ axes.T, explained, axes)


def vad_correlation(directions: Directions, site: Site | str) -> dict[str, tuple[float, float]]:
    """Pearson correlation of valence, arousal and dominance with the two axes of the map.

    With six emotions a correlation below about 0.8 in size is within chance (p = 0.05).

    Raises:
        DataError: If fewer than three of the emotions have known coordinates.
    """
    drawn = emotion_map(directions, site)
    known = [i for i, emotion in enumerate(drawn.emotions) if emotion in VAD]
    if len(known) < 3:
        raise DataError("Valence, arousal and dominance are known for fewer than three emotions.")
    target = torch.tensor([VAD[drawn.emotions[i]] for i in known])
    stacked = torch.cat([drawn.points[known], target], dim=1).T  # [2 axes + 3, emotion]
    correlation = torch.corrcoef(stacked)[:2, 2:]
    return {
        name: (float(correlation[0, i]), float(correlation[1, i])) for i, name in enumerate(AXES)
    }
