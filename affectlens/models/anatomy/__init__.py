"""Where attention, MLP, norms and projections of a model are, and whether that is so."""

from affectlens.models.anatomy.anatomy import Anatomy, BlockParts, find_anatomy

__all__ = ["Anatomy", "BlockParts", "find_anatomy"]
