"""Linear probes that have been fitted, and what every way to fit them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Fitted probes, in the units of the rows given (any standardisation folded back).

    Attributes:
        weights: Coefficients; the classes sum to zero.
        bias: Intercepts; the classes sum to zero.
        converged: Whether ``tol`` was reached before the last step.
    """

    weights: Float[Tensor, "site resample penalty class d"]
    bias: Float[Tensor, "site resample penalty class"]
    converged: Tensor

    def logits(
        self, x: Float[Tensor, "site n d"]
    ) -> Float[Tensor, "site resample penalty n class"]:
        """Scores of rows under every fit of their site."""
        sites, resamples, penalties, classes, d = self.weights.shape
        flat = self.weights.reshape(sites, -1, d)
        scores = x.to(flat.dtype) @ flat.mT + self.bias.reshape(sites, 1, -1)
        return scores.reshape(sites, -1, resamples, penalties, classes).permute(0, 2, 3, 1, 4)

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        return {"weights": self.weights, "bias": self.bias}


def check_rows(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"],
    weight: Float[Tensor, "resample n"],
    n_classes: int,
) -> None:
    """Refuse rows that no probe can be fitted on.

    Raises:
        DataError: If a resample lacks a class, or rows are not finite.
    """
    if not bool(x.isfinite().all()):
        raise DataError("Cannot fit a probe on rows with NaN or infinity; capture them again.")
    per_class = torch.zeros(len(weight), n_classes, device=x.device)
    per_class.index_add_(1, y.to(x.device), weight.float())
    if n_classes < 2 or bool((per_class == 0).any()):
        raise DataError(
            "Cannot fit a probe: every fold needs rows of at least two classes, and of each class; "
            "use fewer folds or fewer classes."
        )


def standardised(
    rows: Float[Tensor, "*batch n d"], weight: Float[Tensor, "*batch n"], *, scaled: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted rows with mean 0 and variance 1, as ``StandardScaler`` makes them.

    Args:
        rows: Features of each row.
        weight: Of each row.
        scaled: Whether the variance is changed too.

    Returns:
        The rows, and the mean and the scale that were taken out, ``[*batch, 1, d]``.
    """
    total = weight.sum(-1)[..., None, None]
    mean = (rows * weight[..., None]).sum(-2, keepdim=True) / total
    rows = rows - mean
    scale = torch.ones_like(mean)
    if scaled:
        deviation = ((rows.square() * weight[..., None]).sum(-2, keepdim=True) / total).sqrt()
        # A constant feature has a deviation of rounding errors only: leave it alone.
        scale = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, scale)
    return rows / scale, mean, scale


def by_site(
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    sites: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "site penalty"]:
    """One row of penalties per site; the same for all if they are given once."""
    c = torch.as_tensor(penalties, dtype=dtype, device=device)
    return c.expand(sites, -1) if c.ndim == 1 else c


def principal_axes(
    rows: Float[Tensor, "problem n d"], weight: Float[Tensor, "problem n"]
) -> tuple[Float[Tensor, "problem d r"], Float[Tensor, "problem r"]]:
    """Orthonormal basis of the rows' span, along their principal axes, and its energies."""
    weighted = rows * weight.sqrt()[..., None]
    if rows.shape[1] >= rows.shape[2]:
        energy, basis = torch.linalg.eigh(weighted.mT @ weighted)
        return basis, energy.clamp_min(0)
    q, r = torch.linalg.qr(weighted.mT)
    energy, rotation = torch.linalg.eigh(r @ r.mT)
    return q @ rotation, energy.clamp_min(0)
