"""What a format of packs is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


@dataclass(frozen=True)
class PackFormat:
    """A row of the table.

    Attributes:
        name: For lists.
        help: One line.
        ending: Of its files, with the dot.
        write: Writes a pack to a file, atomically.
        read: The fields of the pack in a file. A KeyError, TypeError, ValueError or AttributeError
            means that the file is damaged; sentences of its own are ArtefactErrors.
    """

    name: str
    help: str
    ending: str
    write: Callable[[SteeringPack, Path], None]
    read: Callable[[Path], Mapping[str, Any]]
