"""Multinomial logistic regression."""

from __future__ import annotations

from affectlens.geometry.logistic import fit_logistic
from affectlens.probes.estimators.base import ProbeKind

LOGISTIC = ProbeKind("logistic", "multinomial logistic regression with an L2 penalty", fit_logistic)
