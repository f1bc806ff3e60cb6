"""Probes: where and how linearly emotion can be read."""

from affectlens.probes.estimators import PROBES, ProbeKind
from affectlens.probes.sweep import Sweep, sweep

__all__ = ["PROBES", "ProbeKind", "Sweep", "sweep"]
