"""Activations of a corpus: captured in one pass per batch, stored by site and position."""

from affectlens.activations.capture import capture
from affectlens.activations.engines import ENGINES, Capabilities, capabilities
from affectlens.activations.export import export
from affectlens.activations.info import StoreInfo
from affectlens.activations.moments import Moments, moments, moments_of
from affectlens.activations.positions import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.activations.scale import residual_rms
from affectlens.activations.spread import capture_with_ray
from affectlens.activations.store import ActivationStore

__all__ = [
    "DEFAULT_POSITIONS",
    "ENGINES",
    "ActivationStore",
    "Capabilities",
    "Moments",
    "Position",
    "StoreInfo",
    "capabilities",
    "capture",
    "capture_with_ray",
    "export",
    "moments",
    "moments_of",
    "parse_positions",
    "residual_rms",
]
