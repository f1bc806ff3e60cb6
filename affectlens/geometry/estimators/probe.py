"""Weight of a logistic probe."""

from __future__ import annotations

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Weights
from affectlens.geometry.estimators.means import class_centred, dosed
from affectlens.geometry.logistic import fit_logistic

PROBE_C = 0.01  # scikit-learn's C, after standardisation


def _probe(rows: Rows, weight: Weights) -> Displacements:
    fit = fit_logistic(
        rows.x[None],
        rows.emotion,
        (PROBE_C,),
        n_classes=rows.n_emotions,
        weight=weight[:, rows.group],
    )
    return dosed(fit.weights[0, :, 0], class_centred(rows, weight))


PROBE = Estimator(
    "probe",
    "weight of a logistic probe",
    _probe,
    grouped=False,
    neutral=False,
)
