"""Which emotions are nearest to each other: a tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core.display import Displayed
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry.directions import Directions

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, repr=False)
class EmotionTree(Displayed):
    """Emotions joined pair by pair, the nearest first.

    Attributes:
        emotions: The leaves, in the order of the directions.
        site: Where.
        joins: As scipy has them: the two that are joined (leaves first, then earlier joins), their
            distance (1 - cosine, mean over pairs), and how many leaves are below.
        cophenetic: Correlation of distances in the tree with those of the directions: near 1 where
            a tree is a fair picture.
    """

    emotions: tuple[str, ...]
    site: Site
    joins: Float[Floats, "join 4"]
    cophenetic: float

    def brief(self) -> dict[str, object]:
        """Site, emotions, and how well a tree fits."""
        return {
            "site": self.site.hook_name,
            "emotions": len(self.emotions),
            "cophenetic": f"{self.cophenetic:.3f}",
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row per join, the nearest first."""
        return [
            {"distance": float(row[2]), "first": self._below(int(row[0])), "second":
             self._below(int(row[1]))}
            for row in self.joins
        ]  # fmt: skip

    def groups(self, count: int) -> tuple[tuple[str, ...], ...]:
        """The tree cut into so many groups.

        Raises:
            DataError: If that is more than there are emotions, or none.
        """
        from scipy.cluster.hierarchy import fcluster

        if not 1 <= count <= len(self.emotions):
            raise DataError(f"A tree of {len(self.emotions)} emotions has no {count} groups.")
        which = fcluster(self.joins, count, criterion="maxclust")
        return tuple(
            tuple(e for e, found in zip(self.emotions, which, strict=True) if found == one)
            for one in dict.fromkeys(which.tolist())
        )

    def newick(self) -> str:
        """The tree in Newick's notation, names quoted, lengths as distances."""
        n = len(self.emotions)

        def told(node: int, above: float) -> str:
            height = 0.0 if node < n else float(self.joins[node - n, 2])
            length = f":{above - height:.6g}"
            if node < n:
                name = self.emotions[node].replace("'", "''")
                return f"'{name}'{length}"
            first, second = (int(i) for i in self.joins[node - n, :2])
            return f"({told(first, height)},{told(second, height)}){length}"

        root = float(self.joins[-1, 2])
        return told(2 * n - 2, root).rpartition(":")[0] + ";"

    def _below(self, node: int) -> str:
        n = len(self.emotions)
        if node < n:
            return self.emotions[node]
        first, second = (int(i) for i in self.joins[node - n, :2])
        return f"{self._below(first)} {self._below(second)}"


def emotion_tree(directions: Directions, site: Site | str) -> EmotionTree:
    """Join the directions of a site by mean distance, 1 - cosine (scipy's ``average``).

    Raises:
        DataError: If there are fewer than three emotions.
        UnknownNameError: If there are none for the site.
    """
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform

    if len(directions.emotions) < 3:
        raise DataError("A tree needs at least three emotions.")
    place = directions.sites[directions.site_index(site)]
    distance = 1 - directions.cosine_matrix(place).double().numpy()
    condensed = squareform(np.clip((distance + distance.T) / 2, 0, 2), checks=False)
    joins = linkage(condensed, "average")
    fit, _ = cophenet(joins, condensed)
    return EmotionTree(directions.emotions, place, joins, float(fit))
