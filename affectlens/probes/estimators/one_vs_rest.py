"""One-against-rest logistic regression: every class, or every label of many, told from the rest.

The objective of each is that of scikit-learn's binary ``LogisticRegression(C=...)``:

    1/2 ||W_k||^2 + C sum_i w_i (log(1 + exp(W_k x_i + b_k)) - t_ik (W_k x_i + b_k))

with ``t`` 0 or 1. Rows may have several labels or none (GoEmotions). All labels of a site share its
principal axes and run as one problem of the solver of `affectlens.geometry.logistic`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit, by_site, check_rows
from affectlens.geometry.logistic import Rotated, Solver, pack
from affectlens.probes.estimators.base import CLASSES, LABELS, ProbeKind

_ELEMENTS_PER_CHUNK = 1 << 24  # of the packed training rows: bounds memory, not the result
_MAX_ITER = 300


def fit_one_vs_rest(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"] | Float[Tensor, "n label"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    *,
    n_classes: int,
    weight: Float[Tensor, "resample n"],
    tol: float = 1e-3,
) -> LinearFit:
    """See `affectlens.probes.estimators.base.Fit`; scores of classes do not sum to zero."""
    weight = weight.to(x.device).float()
    target = _targets(x, y, n_classes, weight)
    c = by_site(penalties, len(x), device=x.device)
    index, packed = pack(weight)
    chunk = max(1, _ELEMENTS_PER_CHUNK // (index.numel() * x.shape[2]))
    parts = [
        _fit_chunk(x[i : i + chunk].float(), target[index], index, packed, c[i : i + chunk], tol)
        for i in range(0, len(x), chunk)
    ]
    return LinearFit(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _targets(
    x: Float[Tensor, "site n d"], y: Tensor, n_classes: int, weight: Float[Tensor, "resample n"]
) -> Float[Tensor, "n label"]:
    if y.ndim == 1:
        check_rows(x, y, weight, n_classes)
        return one_hot(y.to(x.device).long(), n_classes).float()
    if not bool(x.isfinite().all()):
        raise DataError("Cannot fit a probe on rows with NaN or infinity; capture them again.")
    target = y.to(x.device).float()
    if not bool(((target == 0) | (target == 1)).all()):
        raise DataError("Labels of rows are 0 or 1 each; probes of numbers are fitted by ridge.")
    if n_classes < 1 or target.shape[1] != n_classes:
        raise DataError(f"Rows have {target.shape[1]} labels, not {n_classes}.")
    have = weight @ target
    lacking = ((have == 0) | (have == weight.sum(1, keepdim=True))).any(0).nonzero()[:, 0]
    if len(lacking):
        raise DataError(
            f"Label {int(lacking[0])} is on none of the rows of a fold, or on all; use fewer folds "
            "or leave rare labels out."
        )
    return target


def _fit_chunk(
    x: Float[Tensor, "site n d"],
    target: Float[Tensor, "resample rows label"],
    index: Int[Tensor, "resample rows"],
    weight: Float[Tensor, "resample rows"],
    c: Float[Tensor, "site penalty"],
    tol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    sites, resamples, labels = len(x), len(index), target.shape[-1]
    rows = Rotated.of(x, index, weight)
    told = target.mT.repeat(sites, 1, 1)
    each = c.repeat_interleave(resamples, dim=0)
    solver = _BinarySolver(rows.z, told, rows.weight, each, rows.energy)
    solution, converged = solver.run(tol, _MAX_ITER)  # [problem, 1, penalty * label, r + 1]
    weights, bias = rows.back(solution[:, 0].unflatten(1, (-1, labels)))
    reached = converged.unflatten(1, (-1, labels)).all(-1)
    return weights, bias, reached.unflatten(0, (sites, resamples))


class _BinarySolver(Solver):
    """One column of weights per penalty and label; ``y`` holds their targets."""

    def __init__(
        self,
        z: Float[Tensor, "problem n r1"],
        target: Float[Tensor, "problem label n"],
        weight: Float[Tensor, "problem n"],
        c: Float[Tensor, "problem penalty"],
        energy: Float[Tensor, "problem r"],
    ) -> None:
        each = c.repeat_interleave(target.shape[1], dim=1)  # [problem, penalty * label]
        super().__init__(z, target, weight, each, energy, 1)
        self.ridge = 1.0
        curvature = each[..., None] * energy[:, None] / 4 + self.ridge
        free = each[..., None] * weight.sum(1)[:, None, None] / 4
        self.scale = torch.cat([curvature, free], dim=-1).rsqrt()[:, None]
        # Columns leave once they are done, so each knows whose label it is.
        self.label = torch.arange(target.shape[1], device=target.device).repeat(c.shape[1])

    def _keep_penalties(self, index: Tensor) -> None:
        super()._keep_penalties(index)
        self.label = self.label[index]

    def _told(self) -> Float[Tensor, "problem column n"]:
        return self.y[:, self.label]

    def _loss(self, logits: Tensor) -> Float[Tensor, "problem column"]:
        each = softplus(logits[:, 0]) - self._told() * logits[:, 0]
        return (each * self.weight[:, None]).sum(-1, dtype=torch.float64).float() * self.c

    def _gradient(self, w: Tensor, logits: Tensor) -> Tensor:
        residual = logits[:, 0].sigmoid() - self._told()
        residual = residual * self.weight[:, None] * self.c[..., None]
        gradient = (residual @ self.z)[:, None]
        gradient[..., :-1] += self.ridge * w[..., :-1]
        return gradient * self.scale


ONE_VS_REST = ProbeKind(
    "one_vs_rest",
    "each class, or each of several labels, told from the rest: logistic with an L2 penalty",
    fit_one_vs_rest,
    targets=(CLASSES, LABELS),
    link="sigmoid",
)
