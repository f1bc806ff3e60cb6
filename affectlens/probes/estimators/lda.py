"""Linear discriminant analysis: classes as normal clouds of one covariance, shrunk.

As of scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1 / (1 + C))`` on
standardised features: the covariance within classes plus ``1 / C`` times its mean variance.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.estimators.base import ProbeKind
from affectlens.probes.estimators.exact import as_fit, exactly
from affectlens.probes.estimators.moments import RowMoments


def solve_lda(
    moments: RowMoments, penalties: Float[Tensor, " penalty"], classes: bool = True
) -> LinearFit:
    """The probes of one site, from moments whose targets are one-hot."""
    scale = moments.scale
    count, means, within = moments.classes()
    means = means / scale[:, None]
    covariance = within / (scale[:, :, None] * scale[:, None]) / moments.total[:, None, None]
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    if not bool((size > 0).all()):
        raise DataError("The rows of each class are all the same, so LDA has no spread to go by.")
    identity = torch.eye(covariance.shape[-1], dtype=means.dtype, device=means.device)
    prior = (count / count.sum(-1, keepdim=True)).log()
    weights, biases = list[Tensor](), list[Tensor]()
    for c in penalties.to(means.device):
        share = 1 / (1 + c)
        shrunk = (1 - share) * covariance + share * size[:, None, None] * identity
        axes = torch.linalg.solve(shrunk, means.mT).mT  # [resample, class, d]
        raw = axes / scale[:, None]
        biases.append(prior - (means * axes).sum(-1) / 2 - (raw @ moments.mean[..., None])[..., 0])
        weights.append(raw)
    found = torch.stack(weights, dim=1), torch.stack(biases, dim=1)
    return as_fit(moments, *found, classes=classes)


fit_lda = exactly(solve_lda)
"""See `affectlens.probes.estimators.base.Fit`."""

LDA = ProbeKind(
    "lda",
    "linear discriminant analysis, covariance shrunk by 1 / (1 + C); exact",
    fit_lda,
    from_moments=solve_lda,
)
