"""Packs that come with the package: each file and its card in ``affectlens/data/packs``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from affectlens.core.errors import unknown
from affectlens.steering.packs.card import ENDING
from affectlens.steering.packs.sources.source import PackSource


def folder() -> Path:
    """Where they are."""
    return Path(str(files("affectlens"))) / "data" / "packs"


def locate(address: str) -> Path:
    """The file of a pack in the box.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    names = [name.partition(":")[2] for name in names_in("")]
    if address not in names:
        raise unknown("pack in the box", address, names)
    return folder() / f"{address}.safetensors"


def names_in(_address: str) -> Sequence[str]:
    """All of them, a name before those that begin with it."""
    return sorted(f"box:{card.name.removesuffix(ENDING)}" for card in folder().glob(f"*{ENDING}"))


BOX = PackSource("box", "box:NAME: what comes with affectlens", locate, names_in)
