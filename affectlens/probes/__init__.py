"""Probes: where and how linearly emotion can be read."""

from affectlens.probes.estimators import PROBES, ProbeKind
from affectlens.probes.held_out import HeldOut
from affectlens.probes.number_sweep import NumberSweep
from affectlens.probes.probe import Probe
from affectlens.probes.probe_fit import fit_probe
from affectlens.probes.reading import Readings, read
from affectlens.probes.scores import Scores, scores
from affectlens.probes.sweep import Sweep
from affectlens.probes.sweeping import sweep
from affectlens.probes.targets import Labels, Numbers, numbers_of, store_labels, target_of
from affectlens.probes.vad_map import VadMap, vad_map

__all__ = [
    "PROBES",
    "HeldOut",
    "Labels",
    "NumberSweep",
    "Numbers",
    "Probe",
    "ProbeKind",
    "Readings",
    "Scores",
    "Sweep",
    "VadMap",
    "fit_probe",
    "numbers_of",
    "read",
    "scores",
    "store_labels",
    "sweep",
    "target_of",
    "vad_map",
]
