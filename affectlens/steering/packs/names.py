"""Where a pack of some name is."""

from __future__ import annotations

from pathlib import Path

from affectlens.core import ArtefactError
from affectlens.steering.packs.sources import PACK_SOURCES, PackSource


def split_name(name: str | Path) -> tuple[PackSource | None, str]:
    """The source that a name begins with and the rest; None and all of it for a plain path."""
    word, colon, rest = str(name).partition(":")
    if colon and word in PACK_SOURCES:
        return PACK_SOURCES[word], rest
    return None, str(name)


def located(name: str | Path) -> Path:
    """The file of a pack here, fetched if it is elsewhere.

    Args:
        name: ``box:NAME``, ``file:FOLDER/NAME``, ``hub:owner/repo/file``, or a path.

    Raises:
        UnknownNameError, DataError, ArtefactError: If there is no such pack.
    """
    source, address = split_name(name)
    return Path(address) if source is None else source.locate(address)


def existing(name: str | Path) -> Path:
    """The file of a pack that people named, which must be there; see `located`.

    Raises:
        ArtefactError: If it is not; says how to come by one.
        UnknownNameError, DataError: As `located`.
    """
    path = located(name)
    if not path.is_file():
        raise ArtefactError(
            f"There is no steering pack {name}; make one with `affectlens run`, or name one with "
            "--pack or --run."
        )
    return path
