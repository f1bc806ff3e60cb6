"""Packs by name: found, checked, fetched, passed on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, DataError
from affectlens.core.artefact import atomic_write
from affectlens.core.errors import unknown
from affectlens.steering.packs.card import PackCard, Told, card_file, check_card
from affectlens.steering.packs.names import located, split_name
from affectlens.steering.packs.sources import PACK_SOURCES

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def packs_in(name: str = "box:") -> list[tuple[str, PackCard]]:
    """Packs of a source, with their cards.

    Args:
        name: ``box:``, ``file:FOLDER``, ``hub:owner/repo``.

    Raises:
        UnknownNameError, DataError, ArtefactError: If there is no such place, or a card is damaged.
    """
    source, address = split_name(name)
    if source is None:
        raise unknown("source of packs", name, [f"{word}:" for word in PACK_SOURCES])
    return [(full, PackCard.read(card_file(located(full)))) for full in source.names(address)]


def verify(name: str | Path) -> tuple[SteeringPack, PackCard]:
    """A pack and its card, all of them held against each other.

    Raises:
        UnknownNameError, DataError, ArtefactError: If there is no such pack, or it has no card.
        MismatchError: If they do not match.
    """
    from affectlens.steering.pack import SteeringPack

    path = located(name)
    if not path.is_file():
        raise ArtefactError(f"There is no pack {path}.")
    card = check_card(path)
    if card is None:
        raise ArtefactError(
            f"{name} has no card ({card_file(path).name}) beside it, so there is nothing to check "
            "it against; `affectlens packs push` writes one."
        )
    pack = SteeringPack.load(path)
    card.require_facts(pack, path)
    return pack, card


def pull(name: str, out: str | Path | None = None) -> Path:
    """Fetch a pack and its card, and put them here if they match.

    Args:
        name: ``box:NAME``, ``file:FOLDER/NAME`` or ``hub:owner/repo/file``.
        out: Target file; default: its own name in this folder.

    Returns:
        Where the pack is.

    Raises:
        UnknownNameError, DataError, ArtefactError, MismatchError: As `verify`; nothing is written.
    """
    verify(name)
    source = located(name)
    target = Path(source.name) if out is None else Path(out)
    if target.suffix != source.suffix:
        raise DataError(f"A pack ends in {source.suffix}; call it {target.stem}{source.suffix}.")
    if target.exists() and target.resolve() == source.resolve():
        return target
    # A card of what was there before would not match while the two are written.
    card_file(target).unlink(missing_ok=True)
    atomic_write(target, lambda temporary: shutil.copyfile(source, temporary))
    atomic_write(card_file(target), lambda temporary: shutil.copyfile(card_file(source), temporary))
    return target


def push(
    file: str | Path, name: str, told: Told | None = None, *, force: bool = False
) -> tuple[str, PackCard]:
    """Pass a pack on, with its card.

    Args:
        file: The pack.
        name: ``file:FOLDER``, ``file:FOLDER/NAME``, ``hub:owner/repo`` or ``hub:owner/repo/file``.
        told: What stands in the card besides what the pack knows; default: what stands in the card
            beside the pack, if there is one.
        force: Replace another pack of that name.

    Returns:
        The full name under which it can be pulled, and its card.

    Raises:
        UnknownNameError, DataError: If the name is no place to put a pack.
        ArtefactError, MismatchError: If the pack is damaged, its card does not match, or the place
            cannot be written.
    """
    from affectlens.steering.pack import SteeringPack

    path, (source, address) = Path(file), split_name(name)
    able = [f"{word}:" for word, row in PACK_SOURCES.items() if row.store is not None]
    if source is None or source.store is None:
        raise unknown("place for packs", name, able)
    if not address:
        raise DataError(f"{name} names no place; write for example file:FOLDER or hub:owner/repo.")
    pack = SteeringPack.load(path)
    known = check_card(path)
    card = PackCard.of(pack, path, told or (known.told if known else None))
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / card_file(path).name
        card.write(beside)
        return source.store(address, path, beside, force), card
