"""What probes say of rows that they have not seen, kept row by row.

Every score, every interval and every paired comparison is a function of this and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.statistics import Difference, paired_difference
from affectlens.probes.calibration.base import linked
from affectlens.probes.design import Design, goodness
from affectlens.probes.folds import group_ids

TENSORS = ("held_truth", "held_outputs")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out rows of a sweep.

    Attributes:
        ids: Record of each row.
        groups: Scenario of each row, which intervals draw whole.
        truth: Class of each row, or its number.
        outputs: Scores of the classes, or one predicted number, of each site's probe.
        classes: Labels; none of numbers.
        link: What makes probabilities of scores of classes, as `ProbeKind.link` says.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: Tensor
    outputs: Float[Tensor, "site held output"]
    classes: tuple[str, ...]
    link: str = "softmax"

    @classmethod
    def of(
        cls,
        design: Design,
        ids: Sequence[str],
        outputs: Float[Tensor, "site held output"],
        link: str = "softmax",
    ) -> HeldOut:
        """Of a design; ``ids`` are of all rows of the store's position."""
        rows = design.rows[design.held].tolist()
        return cls(
            tuple([str(ids[row]) for row in rows]),
            tuple(design.held_groups),
            design.y[design.held],
            outputs,
            design.classes,
            link,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self) -> Float[Tensor, "site held class"]:
        """Of each class, in double precision."""
        return linked(self.outputs.double(), self.link, exclusive=False)

    def good(self) -> Float[Tensor, "site held"]:
        """1 where the class is right, else 0; of numbers, less the squared error."""
        return goodness(self.outputs, self.truth, bool(self.classes))

    def compare(self, site: int, other: HeldOut, other_site: int, *, draws: int) -> Difference:
        """Paired difference of `good` between two probes of the same rows.

        Raises:
            DataError: If the rows or what is read differ.
        """
        if self.ids != other.ids or not torch.equal(self.truth, other.truth):
            raise DataError("Probes can be compared in pairs on the same held-out rows only.")
        mine, theirs = self.good()[site].double(), other.good()[other_site].double()
        return paired_difference(mine.numpy(), theirs.numpy(), self.groups, draws=draws)

    def numbered(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
        """Number of each row's group in order of appearance, and how many groups."""
        number = group_ids(self.groups).numpy()
        return number, int(number.max(initial=-1)) + 1

    def tensors(self) -> dict[str, Tensor]:
        """For the file of a sweep."""
        return dict(zip(TENSORS, (self.truth, self.outputs), strict=True))

    def facts(self) -> dict[str, Any]:
        """For the header of that file."""
        return {"held_ids": self.ids, "held_groups": self.groups, "link": self.link}

    @classmethod
    def read(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], classes: Sequence[str]
    ) -> HeldOut:
        """Inverse of `tensors` and `facts`.

        Raises:
            ArtefactError: If they do not fit each other.
            KeyError: If the file lacks them.
        """
        truth, outputs = (tensors[name] for name in TENSORS)
        ids, groups = (tuple(map(str, facts[name])) for name in ("held_ids", "held_groups"))
        if not len(ids) == len(groups) == len(truth) == outputs.shape[1]:
            raise ArtefactError("The held-out rows of this sweep do not fit; make it again.")
        return cls(ids, groups, truth, outputs, tuple(classes), str(facts["link"]))
