"""Where packs are kept, by the word before the colon of their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackSource:
    """A row of the table.

    Attributes:
        name: What a name begins with, before the colon.
        help: One line.
        locate: From what follows the colon to a pack's file here, its card beside it if there is
            one; fetches what is elsewhere.
        names: Full names of the packs below what follows the colon.
        store: Puts a pack's file and its card where a name says, and returns the full name; None
            if nothing can be put there. The flag says whether to replace what is there.
    """

    name: str
    help: str
    locate: Callable[[str], Path]
    names: Callable[[str], Sequence[str]]
    store: Callable[[str, Path, Path, bool], str] | None = None
