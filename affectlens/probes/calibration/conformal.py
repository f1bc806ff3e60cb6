"""Conformal label sets: labels that hold the true one as often as was asked, whatever the probe.

Split conformal prediction with the score ``1 - p`` of the true class (Sadinle, Lei and Wasserman
2019), for rows that come in groups: every group counts once, shared by its rows, and one more group
is allowed for that nobody has seen (hierarchical conformal prediction, Lee, Barber and Willett,
arXiv 2306.06342). So a row of a new group has its label in the set with at least the coverage
asked, on average over groups; rows of one group need not be independent. ``p`` are the probe's own
probabilities, before a calibration, so that both may be fitted on the same rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Conformal:
    """What rows held out said of a probe.

    Attributes:
        scores: ``1 - p`` of the true class of each row, ascending.
        weights: Of each of them: together 1 for every group.
        groups: How many groups.
    """

    scores: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]
    groups: int

    def threshold(self, coverage: float) -> float:
        """The largest score a label of a set may have; infinite if all labels are needed.

        Raises:
            DataError: If the coverage is no share between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise DataError(f"A coverage is a share between 0 and 1, not {coverage}.")
        mass = self.weights.cumsum(0) / (self.groups + 1)
        enough = (mass >= coverage - 1e-12).nonzero()
        return float(self.scores[int(enough[0])]) if len(enough) else float("inf")

    def sets(
        self, probabilities: Float[Tensor, "n class"], coverage: float
    ) -> Bool[Tensor, "n class"]:
        """Which labels are in the set of each row; a set may be empty where all are unlikely."""
        return 1 - probabilities <= self.threshold(coverage)

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        return {"scores": self.scores, "weights": self.weights}

    @classmethod
    def restored(cls, parts: dict[str, Any]) -> Conformal:
        """Inverse of `parts`."""
        return cls(parts["scores"], parts["weights"], round(float(parts["weights"].sum())))


def conformal(
    probabilities: Float[Tensor, "n class"],
    truth: Int[Tensor, " n"],
    groups: Sequence[Hashable],
) -> Conformal:
    """Scores of rows that the probe was not fitted on.

    Args:
        probabilities: As the probe claims them.
        truth: Class of each row.
        groups: Of each row.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    if not 0 < len(probabilities) == len(truth) == len(groups):
        raise DataError(
            f"Conformal sets need class and group of every row: {len(probabilities)} rows, "
            f"{len(truth)} classes, {len(groups)} groups."
        )
    number = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    owner = torch.tensor([number[g] for g in groups])
    weights = 1 / torch.bincount(owner).double()[owner]
    p = probabilities.detach().cpu().double()
    scores = 1 - p.gather(1, truth.cpu().long()[:, None])[:, 0]
    order = scores.argsort(stable=True)
    return Conformal(scores[order], weights[order], len(number))
