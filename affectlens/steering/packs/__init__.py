"""Packs that people pass on: the card beside each, and where they come from by name."""

from affectlens.steering.packs.card import PackCard
from affectlens.steering.packs.exchange import packs_in, pull, push, verify
from affectlens.steering.packs.names import existing, located
from affectlens.steering.packs.sources import PACK_SOURCES, PackSource
from affectlens.steering.packs.usual import usual_packs

__all__ = [
    "PACK_SOURCES",
    "PackCard",
    "PackSource",
    "existing",
    "located",
    "packs_in",
    "pull",
    "push",
    "usual_packs",
    "verify",
]
