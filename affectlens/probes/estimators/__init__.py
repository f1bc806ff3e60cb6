"""Kinds of probes, behind one interface."""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.probes.estimators.base import Fit, ProbeKind
from affectlens.probes.estimators.logistic import LOGISTIC
from affectlens.probes.estimators.ridge import RIDGE

PROBES: Registry[ProbeKind] = Registry("probe", LOGISTIC, RIDGE)
"""Every probe that a sweep can fit, the default first."""

__all__ = ["PROBES", "Fit", "ProbeKind"]
