"""What a store says of itself in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectlens.activations.store.row_sources import ShardSource
from affectlens.activations.store.shard_file import DTYPES
from affectlens.core.artefact import Provenance
from affectlens.core.places import Site


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """Sizes, counts and what made a store (all its rows, whatever is selected).

    Attributes:
        where: Path or URL; "" for memory.
        dtype: Of the numbers stored.
        widths: Numbers per row of each site.
        rows: Of each position.
        shards: How many files hold them.
        bytes: Of all files, or in memory.
        layout: What the shards were planned by.
        facts: Design of the corpus, counts of texts skipped and cut.
        provenance: What made it.
        package_version: Of the version that wrote it.
    """

    where: str
    dtype: str
    widths: Mapping[Site, int]
    rows: Mapping[str, int]
    shards: int
    bytes: int
    layout: Mapping[str, Any]
    facts: Mapping[str, Any]
    provenance: Provenance
    package_version: str = ""


def disk_info(source: ShardSource) -> StoreInfo:
    """What a store on disk says of itself."""
    found = source.manifest
    return StoreInfo(
        where=source.folder.where,
        dtype=found.dtype,
        widths=found.widths,
        rows=found.positions,
        shards=len(found.shards),
        bytes=found.table.bytes + sum(entry.bytes for entry in found.entries),
        layout=found.layout,
        facts=found.facts,
        provenance=found.provenance,
        package_version=found.package_version,
    )


def memory_info(
    widths: Mapping[Site, int],
    rows: Mapping[str, int],
    dtype: str,
    facts: Mapping[str, Any],
    provenance: Provenance,
) -> StoreInfo:
    """The same of one in memory."""
    size = sum(rows.values()) * sum(widths.values()) * DTYPES[dtype].itemsize
    return StoreInfo("", dtype, widths, rows, 0, size, {}, facts, provenance)
