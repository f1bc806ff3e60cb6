"""Kinds of probes, behind one interface."""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.probes.estimators.attention import ATTENTION
from affectlens.probes.estimators.base import CLASSES, LABELS, NUMBERS, Fit, Fitted, ProbeKind
from affectlens.probes.estimators.difference_of_means import DIFFERENCE_OF_MEANS
from affectlens.probes.estimators.lda import LDA
from affectlens.probes.estimators.logistic import LOGISTIC
from affectlens.probes.estimators.mlp import MLP
from affectlens.probes.estimators.one_vs_rest import ONE_VS_REST
from affectlens.probes.estimators.ridge import RIDGE

PROBES: Registry[ProbeKind] = Registry(
    "probe", LOGISTIC, RIDGE, ONE_VS_REST, LDA, DIFFERENCE_OF_MEANS, MLP, ATTENTION
)
"""Every probe, the default first; a sweep fits those that are linear in one row per text."""

__all__ = ["CLASSES", "LABELS", "NUMBERS", "PROBES", "Fit", "Fitted", "ProbeKind"]
