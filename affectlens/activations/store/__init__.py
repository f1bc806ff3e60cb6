"""The activation store: its folder, its shards, who writes it and how rows are read."""

from affectlens.activations.store.store import ActivationStore

__all__ = ["ActivationStore"]
