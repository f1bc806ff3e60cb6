"""Probes: where and how linearly emotion can be read."""

from affectlens.probes.estimators import PROBES, ProbeKind
from affectlens.probes.held_out import HeldOut
from affectlens.probes.number_sweep import NumberSweep
from affectlens.probes.scores import Scores, scores
from affectlens.probes.sweep import Sweep
from affectlens.probes.sweeping import sweep
from affectlens.probes.targets import Labels, Numbers, numbers_of, store_labels, target_of

__all__ = [
    "PROBES",
    "HeldOut",
    "Labels",
    "NumberSweep",
    "Numbers",
    "ProbeKind",
    "Scores",
    "Sweep",
    "numbers_of",
    "scores",
    "store_labels",
    "sweep",
    "target_of",
]
