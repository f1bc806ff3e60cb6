"""Representational similarity: do emotions lie to each other alike, in two layers or models?

Kriegeskorte, Mur and Bandettini, 2008, "Representational similarity analysis". Models of different
width can be compared, because only distances between emotions are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core.display import Displayed
from affectlens.core.errors import DataError
from affectlens.core.permutations import orders
from affectlens.core.places import Site
from affectlens.geometry.directions import Directions

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, repr=False)
class Similarity(Displayed):
    """How alike the distances between emotions are, at sites of one model and of another.

    Attributes:
        emotions: That both have.
        first, second: Sites along the two axes.
        names: Of the two models.
        r: Spearman correlation of the distances (1 - cosine) over all pairs of emotions.
        p: One-sided, by permuting the emotions of one side (Mantel): all orders up to 7 emotions.
            Adjacent layers share most of what they hold, so there a small p is no finding.
    """

    emotions: tuple[str, ...]
    first: tuple[Site, ...]
    second: tuple[Site, ...]
    names: tuple[str, str]
    r: Float[Floats, "first second"]
    p: Float[Floats, "first second"]

    def brief(self) -> dict[str, object]:
        """The models, the emotions, and the mean correlation."""
        return {
            "models": " / ".join(dict.fromkeys(self.names)),
            "emotions": len(self.emotions),
            "mean r": f"{float(np.nanmean(self.r)):.3f}",
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row per pair of sites."""
        return [
            {
                "first": a.hook_name,
                "second": b.hook_name,
                "r": float(self.r[i, j]),
                "p": float(self.p[i, j]),
            }
            for i, a in enumerate(self.first)
            for j, b in enumerate(self.second)
        ]


def similarity(
    first: Directions,
    second: Directions | None = None,
    *,
    kind: str = "resid_post",
    permutations: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Compare the distances between emotions at every site with those at every other.

    Args:
        first: Directions of a model.
        second: Of another model, or on other texts; default: the same, layer against layer.
        kind: Of the sites that are compared.
        permutations: Orders of the emotions, where there are more than 7.
        seed: Of these.

    Raises:
        DataError: If the two share fewer than four emotions, or have no site of that kind.
    """
    other = second or first
    emotions = tuple(e for e in first.emotions if e in other.emotions)
    if len(emotions) < 4:
        raise DataError(
            "Similarity compares distances between at least four emotions that both have; there "
            f"{'is' if len(emotions) == 1 else 'are'} {len(emotions)}."
        )
    sides = [_distances(found, emotions, kind) for found in (first, other)]
    dealings = orders(len(emotions), permutations, seed, exact_to=7)
    rows, columns = np.triu_indices(len(emotions), 1)
    ranked = [_ranks(side[:, rows, columns]) for _, side in sides]
    r = ranked[0] @ ranked[1].T
    # The ranks of dealt pairs are the dealt ranks: put them into squares once.
    square = np.zeros((len(sides[1][1]), len(emotions), len(emotions)))
    square[:, rows, columns] = square[:, columns, rows] = ranked[1]
    reached = np.zeros_like(r)
    for order in dealings:
        dealt = square[:, order][:, :, order][:, rows, columns]
        reached += ranked[0] @ dealt.T >= r - 1e-12
    names = (first.provenance.model_name, other.provenance.model_name)
    return Similarity(emotions, sides[0][0], sides[1][0], names, r, reached / len(dealings))


def _distances(
    found: Directions, emotions: Sequence[str], kind: str
) -> tuple[tuple[Site, ...], Float[Floats, "site emotion emotion"]]:
    sites = tuple(site for site in found.sites if site.kind == kind)
    if not sites:
        kinds = ", ".join(dict.fromkeys(site.kind for site in found.sites))
        raise DataError(f"There are no directions at {kind}; there are some at {kinds}.")
    index = [found.emotions.index(e) for e in emotions]
    cosines = [found.cosine_matrix(site).double().numpy()[np.ix_(index, index)] for site in sites]
    return sites, 1 - np.stack(cosines)


def _ranks(rows: Float[Floats, "site pair"]) -> Float[Floats, "site pair"]:
    """Ranks, ties shared, centred and of unit length: their inner products are correlations."""
    from scipy.stats import rankdata

    ranks = rankdata(rows, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return ranks / np.where(length > 0, length, math.nan)
