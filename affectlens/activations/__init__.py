"""Activations of a corpus: captured in one pass per batch, stored by site and position."""

from affectlens.activations.capture import capture
from affectlens.activations.positions import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.activations.store import ActivationStore

__all__ = ["DEFAULT_POSITIONS", "ActivationStore", "Position", "capture", "parse_positions"]
