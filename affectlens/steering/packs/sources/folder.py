"""Packs in a folder, which serves as a hub without a network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from affectlens.core import ArtefactError
from affectlens.core.artefact import atomic_write
from affectlens.steering.packs.card import ENDING, card_file
from affectlens.steering.packs.sources.source import PackSource

_PACK = ".safetensors"


def locate(address: str) -> Path:
    """A pack's file; the ending may be left out, and a folder stands for the one pack in it.

    Raises:
        ArtefactError: If there is none, or the folder holds several.
    """
    path = Path(address).expanduser()
    if path.is_dir():
        inside = names_in(address)
        if len(inside) != 1:
            have = f"holds several packs: {', '.join(inside)}" if inside else "holds no pack card"
            raise ArtefactError(f"The folder {path} {have}; name one file in it.")
        return Path(inside[0].partition(":")[2])
    for found in (path, path.with_name(path.name + _PACK)):
        if found.is_file():
            return found
    raise ArtefactError(f"There is no pack {path}; `affectlens packs list file:FOLDER` lists them.")


def names_in(address: str) -> Sequence[str]:
    """All packs with a card below a folder.

    Raises:
        ArtefactError: If there is no such folder.
    """
    root = Path(address).expanduser()
    if not root.is_dir():
        raise ArtefactError(f"There is no folder {root}.")
    cards = sorted(root.rglob(f"*{ENDING}"))
    packs = (card.with_name(card.name.removesuffix(ENDING) + _PACK) for card in cards)
    return [f"file:{pack}" for pack in packs if pack.is_file()]


def store(address: str, pack: Path, card: Path, replace: bool) -> str:
    """Copy a pack and its card to a folder, or under a name in one.

    Raises:
        ArtefactError: If there is another pack already, or the folder cannot be written.
    """
    path = Path(address).expanduser()
    if path.is_dir() or address.endswith("/"):
        path = path / pack.name
    elif path.suffix != _PACK:
        path = path.with_name(path.name + _PACK)
    if path.is_file() and not replace and path.read_bytes() != pack.read_bytes():
        raise ArtefactError(
            f"There is another pack {path} already; choose another name, or replace it with "
            "--force."
        )
    for source, target in ((pack, path), (card, card_file(path))):
        atomic_write(target, lambda temporary, source=source: shutil.copyfile(source, temporary))
    return f"file:{path}"


FOLDER = PackSource("file", "file:FOLDER/NAME: a folder of packs", locate, names_in, store)
