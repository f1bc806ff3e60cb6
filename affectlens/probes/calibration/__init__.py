"""Calibration: what a probe's probabilities are worth, and how they are put right."""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.probes.calibration.base import Calibration, CalibrationKind
from affectlens.probes.calibration.conformal import Conformal, conformal
from affectlens.probes.calibration.isotonic import ISOTONIC, Isotonic
from affectlens.probes.calibration.none import NONE, Uncalibrated
from affectlens.probes.calibration.quality import Quality, quality
from affectlens.probes.calibration.temperature import TEMPERATURE, Temperature

CALIBRATIONS: Registry[CalibrationKind] = Registry("calibration", TEMPERATURE, ISOTONIC, NONE)
"""Ways to make probabilities of scores, the default first."""

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "CalibrationKind",
    "Conformal",
    "Isotonic",
    "Quality",
    "Temperature",
    "Uncalibrated",
    "conformal",
    "quality",
]
