"""Activations of a corpus: captured in one pass per batch, stored by site and position."""

from affectlens.activations.capture import capture
from affectlens.activations.distributed.ray_capture import capture_with_ray
from affectlens.activations.forward.engines import ENGINES, Capabilities, capabilities
from affectlens.activations.positions import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.activations.scale import residual_rms
from affectlens.activations.settings import CaptureSettings, PassSettings
from affectlens.activations.store.export import export
from affectlens.activations.store.info import StoreInfo
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.streaming.moments import Moments, moments, moments_of

__all__ = [
    "DEFAULT_POSITIONS",
    "ENGINES",
    "ActivationStore",
    "Capabilities",
    "CaptureSettings",
    "Moments",
    "PassSettings",
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
