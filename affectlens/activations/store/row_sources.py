"""Where the rows of a store come from: tensors in memory, or the shards of a folder.

Rows lie in *storage order*; ``order`` says where each row of the table is. A source is read in
pieces, ranges of stored rows that never cross a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.folder import Folder
from affectlens.activations.store.label_table import Ints, LabelFile
from affectlens.activations.store.manifest import Manifest
from affectlens.activations.store.quantise import dequantise
from affectlens.activations.store.shard_file import (
    COLUMN_SCALE,
    ROW_SCALE,
    Part,
    data_size,
    file_header,
    parts,
    tensor_name,
    torch_dtype,
)
from affectlens.core.errors import ArtefactError
from affectlens.core.places import Site


class Source(Protocol):
    """Rows of a store by site and position."""

    @property
    def widths(self) -> Mapping[Site, int]:
        """Its sites, with their width."""
        ...

    def order(self, position: str) -> Ints:
        """Stored row of each row of the table, ``[n]``."""
        ...

    def pieces(self, position: str, rows: int) -> list[tuple[int, int]]:
        """Ranges of stored rows, all of them, each at most so long."""
        ...

    def piece(self, site: Site, position: str, start: int, stop: int) -> Float[Tensor, "n width"]:
        """A range of stored rows, not across shards; not to be changed."""
        ...

    def read(self, site: Site, position: str, rows: Ints | None) -> Float[Tensor, "n width"]:
        """Rows of the table, by number in its position; None for all."""
        ...


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Tensors ``[n, width]`` in the order of the table."""

    arrays: Mapping[tuple[Site, str], Tensor]

    @property
    def widths(self) -> Mapping[Site, int]:
        """As `Source.widths`."""
        return {site: values.shape[1] for (site, _), values in self.arrays.items()}

    def order(self, position: str) -> Ints:
        """Every row is where the table has it."""
        return np.arange(self._rows(position))

    def pieces(self, position: str, rows: int) -> list[tuple[int, int]]:
        """As `Source.pieces`."""
        return _cut(0, self._rows(position), rows)

    def piece(self, site: Site, position: str, start: int, stop: int) -> Float[Tensor, "n width"]:
        """As `Source.piece`."""
        return self.arrays[site, position][start:stop]

    def read(self, site: Site, position: str, rows: Ints | None) -> Float[Tensor, "n width"]:
        """As `Source.read`; all rows are the tensor itself."""
        values = self.arrays[site, position]
        return values if rows is None else values[torch.from_numpy(rows)]

    def _rows(self, position: str) -> int:
        return next(len(v) for (_, name), v in self.arrays.items() if name == position)


@dataclass(frozen=True, eq=False)
class ShardSource:
    """The shards of a finished store.

    Each file's header is compared once with what follows from the manifest; the numbers are
    compared with their checksum by `ActivationStore.verify` alone.
    """

    folder: Folder
    manifest: Manifest
    _parts: dict[tuple[int, str], tuple[int, Part]] = field(default_factory=dict)
    _orders: dict[str, Ints] = field(default_factory=dict)

    @property
    def widths(self) -> Mapping[Site, int]:
        """As `Source.widths`."""
        return self.manifest.widths

    def order(self, position: str) -> Ints:
        """As `Source.order`.

        Raises:
            ArtefactError: If the table does not name every stored row once.
        """
        if position not in self._orders:
            table = self.manifest.table
            order = LabelFile(self.folder, table, self.manifest.positions).stored(position)
            seen = np.zeros(len(order), bool)
            if order.min() >= 0 and order.max() < len(order):
                seen[order] = True
            if not seen.all():
                raise ArtefactError(
                    f"{self.folder.file(table.file)} does not say where the rows of {position} "
                    "are; capture again."
                )
            self._orders[position] = order
        return self._orders[position]

    def pieces(self, position: str, rows: int) -> list[tuple[int, int]]:
        """As `Source.pieces`."""
        starts = self.manifest.starts[position].tolist()
        return [piece for a, b in pairwise(starts) for piece in _cut(a, b, rows)]

    def piece(self, site: Site, position: str, start: int, stop: int) -> Float[Tensor, "n width"]:
        """As `Source.piece`; read as one range.

        Raises:
            ArtefactError: If the shard is missing, cut short, or not the one of the manifest.
        """
        starts = self.manifest.starts[position]
        shard = int(np.searchsorted(starts, start, side="right")) - 1
        first = start - int(starts[shard])
        return self._rows(site, position, shard, first, stop - int(starts[shard]))

    def read(self, site: Site, position: str, rows: Ints | None) -> Float[Tensor, "n width"]:
        """As `Source.read`; in the order asked for, shard by shard."""
        order = self.order(position)
        wanted = order if rows is None else order[rows]
        by = np.argsort(wanted, kind="stable")
        ascending, starts = wanted[by], self.manifest.starts[position]
        cuts = np.searchsorted(ascending, starts).tolist()
        width, dtype = self.manifest.widths[site], torch_dtype(self.manifest.dtype)
        out = torch.empty(len(wanted), width, dtype=dtype)
        for shard, (a, b) in enumerate(pairwise(cuts)):
            if a == b:
                continue
            local = ascending[a:b] - starts[shard]
            first, last = int(local[0]), int(local[-1]) + 1
            sparse = 2 * (b - a) < last - first
            values = self._rows(site, position, shard, first, last, sparse=sparse)
            out[torch.from_numpy(by[a:b])] = values[torch.from_numpy(local - first)]
        return out

    def _rows(
        self,
        site: Site,
        position: str,
        shard: int,
        start: int,
        stop: int,
        *,
        sparse: bool = False,
    ) -> Float[Tensor, "n width"]:
        name = tensor_name(site, position)
        values = self._slice(shard, name, start, stop, sparse=sparse)
        if self.manifest.dtype != "int8":
            return values
        width = self.manifest.widths[site]
        return dequantise(
            values,
            self._slice(shard, f"{name}/{ROW_SCALE}", start, stop),
            self._slice(shard, f"{name}/{COLUMN_SCALE}", 0, width),
        )

    def _slice(
        self, shard: int, name: str, start: int, stop: int, *, sparse: bool = False
    ) -> Tensor:
        offset, part = self._part(shard, name)
        step = (part.stop - part.start) // part.shape[0]
        first = offset + part.start
        file = self.manifest.entries[shard].file
        data = self.folder.view(file, first + start * step, first + stop * step, sparse=sparse)
        values = torch.from_numpy(data).view(part.dtype)
        return values.view(stop - start, *part.shape[1:])

    def _part(self, shard: int, name: str) -> tuple[int, Part]:
        """Where a tensor lies: the length of the header, and the part."""
        if (shard, name) not in self._parts:
            entry = self.manifest.entries[shard]
            found = parts(self.manifest.widths, entry.rows, self.manifest.dtype)
            header = file_header(found, self.manifest.fingerprint, shard)
            expected = len(header) + data_size(found) == entry.bytes
            if not expected or self.folder.view(entry.file, 0, len(header)).tobytes() != header:
                raise ArtefactError(
                    f"{self.folder.file(entry.file)} is not the shard that the manifest tells "
                    "of; capture again."
                )
            for key in (name, f"{name}/{ROW_SCALE}", f"{name}/{COLUMN_SCALE}"):
                if key in found:
                    self._parts[shard, key] = (len(header), found[key])
        return self._parts[shard, name]


def _cut(start: int, stop: int, rows: int) -> list[tuple[int, int]]:
    return [(a, min(a + rows, stop)) for a in range(start, stop, rows)]
