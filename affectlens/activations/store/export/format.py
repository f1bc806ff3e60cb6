"""What a format is: how the rows of one site and position are written to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.places import Site

_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class ExportFormat:
    """A format of files with activations.

    Attributes:
        name: What users ask for, and how such files end.
        help: What is in the file.
        write: Writes the rows of a store, a site and a position to a file that does not exist yet.
    """

    name: str
    help: str
    write: Callable[[ActivationStore, Path, Site, str], None]


def chunks(store: ActivationStore, site: Site, position: str) -> Iterator[Tensor]:
    """The rows in the order of the corpus, ``[n, width]`` in the stored dtype, some at a time."""
    n, step = n_rows(store, position), max(1, _CHUNK_BYTES // (4 * store.width(site)))
    for start in range(0, n, step):
        yield store.tensor(site, position, slice(start, start + step))


def n_rows(store: ActivationStore, position: str) -> int:
    """How many rows there are at a position."""
    return len(store.storage_order(position))
