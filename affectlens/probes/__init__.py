"""Probes: where and how linearly emotion can be read."""

from affectlens.probes.sweep import Sweep, sweep

__all__ = ["Sweep", "sweep"]
