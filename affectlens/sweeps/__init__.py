"""Probe sweeps over any models, corpora and targets, beside their controls."""

from affectlens.sweeps.controls import CONTROLS, Control
from affectlens.sweeps.request import SweepRequest
from affectlens.sweeps.results import Cell, SweepResults
from affectlens.sweeps.run import run_sweeps

__all__ = ["CONTROLS", "Cell", "Control", "SweepRequest", "SweepResults", "run_sweeps"]
