"""LEACE: the smallest change of rows after which no linear probe tells their classes.

The closed form of Belrose et al., "LEACE: Perfect linear concept erasure in closed form" (2023,
arXiv 2306.03819, theorem 4.3). With ``W`` the whitening of the rows and ``P`` the projection onto
the columns of ``W Σ_xz``:

    r(x) = x - W⁺ P W (x - mean)

Afterwards every class has the same mean, and no affine map that has this moves rows less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from affectlens.core.errors import DataError

_RANK = 1e-9  # relative to the largest eigenvalue, or singular value


@dataclass(frozen=True, eq=False)
class Eraser:
    """``x - left right (x - mean)``.

    Attributes:
        left: Where rows are moved.
        right: By what they are moved: as many rows as classes differ in dimensions.
        mean: Of the rows it was fitted on; it stays where it is.
    """

    left: Float[Tensor, "d rank"]
    right: Float[Tensor, "rank d"]
    mean: Float[Tensor, " d"]

    @property
    def rank(self) -> int:
        """Dimensions that are erased."""
        return len(self.right)

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Rows without what tells the classes."""
        left, right, mean = (t.to(x) for t in (self.left, self.right, self.mean))
        return x - (x - mean) @ right.T @ left.T

    @classmethod
    def of_subspace(cls, directions: Float[Tensor, "k d"], mean: Float[Tensor, " d"]) -> Eraser:
        """The orthogonal one: the projection on directions is set to that of the mean.

        Raises:
            DataError: If all directions are zero, or one is not finite.
        """
        if not bool(directions.isfinite().all()) or not bool(directions.any()):
            raise DataError("A direction to erase holds NaN, or all are zero; give other ones.")
        _, sizes, rows = torch.linalg.svd(directions.double(), full_matrices=False)
        basis = rows[sizes > 1e-6 * sizes.max()]
        return cls(basis.T, basis, mean.double())


def fit_leace(x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> Eraser:
    """Fit on rows and their classes.

    Args:
        x: Rows.
        y: Class of each, from 0.

    Raises:
        DataError: If there is one class only, or a row is not finite.
    """
    if not bool(x.isfinite().all()):
        raise DataError("Cannot erase from rows with NaN or infinity; capture them again.")
    if len(y.unique()) < 2:
        raise DataError("Erasure needs rows of two classes at least.")
    rows = x.double()
    mean = rows.mean(0)
    centred = rows - mean
    classes = one_hot(y.to(x.device).long()).double()
    cross = centred.T @ (classes - classes.mean(0)) / len(rows)
    energy, axes = torch.linalg.eigh(centred.T @ centred / len(rows))
    kept = energy > _RANK * energy.max()
    root, axes = energy[kept].sqrt(), axes[:, kept]
    white = axes / root @ axes.T
    colour = axes * root @ axes.T
    u, sizes, _ = torch.linalg.svd(white @ cross, full_matrices=False)
    u = u[:, sizes > 1e-6 * sizes.max()]
    return Eraser(colour @ u, u.T @ white, mean)
