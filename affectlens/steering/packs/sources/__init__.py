"""Where packs come from by name."""

from affectlens.core.registry import Registry
from affectlens.steering.packs.sources.box import BOX
from affectlens.steering.packs.sources.folder import FOLDER
from affectlens.steering.packs.sources.hub import HUB
from affectlens.steering.packs.sources.source import PackSource

PACK_SOURCES: Registry[PackSource] = Registry("source of packs", BOX, FOLDER, HUB)
"""By the word before the colon."""

__all__ = ["PACK_SOURCES", "PackSource"]
