"""A run on a user's own groups: what is asked, what becomes of the texts, and what cannot be."""

from affectlens.pipeline.own.choice import OwnCorpus

__all__ = ["OwnCorpus"]
