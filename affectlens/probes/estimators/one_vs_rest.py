"""One-against-rest logistic regression: every class, or every label of many, told from the rest.

The objective of each is that of scikit-learn's binary ``LogisticRegression(C=...)``:

    1/2 ||W_k||^2 + C sum_i w_i (log(1 + exp(W_k x_i + b_k)) - t_ik (W_k x_i + b_k))

with ``t`` 0 or 1. Rows may have several labels or none (GoEmotions). All labels of a site are
fits of one run of `affectlens.geometry.logistic_solver`.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit, check_rows
from affectlens.geometry.logistic import in_chunks
from affectlens.geometry.logistic_rows import Rules
from affectlens.probes.estimators.base import CLASSES, LABELS, ProbeKind

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
    told = _targets(x, y, n_classes, weight).T[:, None].repeat(len(weight), 1, 1)
    rules = Rules(True, 1.0, True, tol, _MAX_ITER)
    each = weight.repeat_interleave(n_classes, dim=0)  # a fit per resample and label
    weights, bias, converged = in_chunks(x, told, each, penalties, rules)
    weights, bias, converged = (
        t.unflatten(1, (-1, n_classes)).movedim(2, 3) for t in (weights, bias, converged)
    )
    return LinearFit(weights[..., 0, :], bias[..., 0], converged.all(-1))


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


ONE_VS_REST = ProbeKind(
    "one_vs_rest",
    "each class, or each of several labels, told from the rest: logistic with an L2 penalty",
    fit_one_vs_rest,
    targets=(CLASSES, LABELS),
    link="sigmoid",
)
