"""What a store's folder says about itself: the manifest, and the columns of the label table.

``manifest.json`` names what made the store, what it holds, and every file with its size and
checksum. While a store is being written its shards are missing there; each finished one has a
receipt beside it, which `Manifest` does not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.activations.store.folder import Folder
from affectlens.activations.store.shard_file import DTYPES, torch_dtype
from affectlens.core.artefact import Provenance, canonical_json, package_version
from affectlens.core.errors import ArtefactError, MismatchError, UnknownNameError
from affectlens.core.extras import needed
from affectlens.core.places import Site

if TYPE_CHECKING:
    import pyarrow as pa

STORE_FORMAT = 2
MANIFEST = "manifest.json"
TABLE = "rows.parquet"
SHARDS = "shards"

LABELS: tuple[str, ...] = (
    "id",
    "emotion",
    "valence",
    "group",
    "scenario",
    "theme",
    "split",
    "role",
    "position",
    "token",
    "tokens",
)
"""Columns of the table; ``token`` is the first token read (from the text's start), ``tokens`` how
many were averaged."""

STORED = "stored"
"""One more column on disk: the number of the row in storage order, within its position."""

_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file that was written: its name, size and checksum."""

    file: str
    bytes: int
    sha256: str

    def damage(self, folder: Folder) -> str:
        """What is wrong with the file as it is now; "" if nothing."""
        size = folder.size(self.file)
        if size is None:
            return "is missing"
        if size != self.bytes:
            return f"is cut short ({size} of {self.bytes} bytes)"
        return "" if folder.sha256(self.file) == self.sha256 else "is not what was written"


@dataclass(frozen=True)
class ShardEntry(FileEntry):
    """A shard that was written, and how many rows of each position it holds."""

    rows: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Manifest:
    """What a store holds.

    Attributes:
        fingerprint: Of the provenance, as the shards have it in their headers.
        provenance: What made it.
        package_version: Of the version of this package that wrote it.
        dtype: Name in `files.DTYPES`.
        facts: Design of the corpus, counts of texts skipped and cut.
        layout: What the shards were planned by.
        widths: Numbers per row of each site.
        positions: Rows of each position, in the order of the table.
        table: The label table.
        shards: In storage order; None where it is not known to be finished.
        complete: Whether it is finished.
    """

    fingerprint: str
    provenance: Provenance
    package_version: str
    dtype: str
    facts: Mapping[str, Any]
    layout: Mapping[str, Any]
    widths: Mapping[Site, int]
    positions: Mapping[str, int]
    table: FileEntry
    shards: tuple[ShardEntry | None, ...]
    complete: bool

    @cached_property
    def entries(self) -> list[ShardEntry]:
        """The finished shards."""
        return [shard for shard in self.shards if shard is not None]

    @cached_property
    def starts(self) -> Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]:
        """First stored row of each shard, and one past the last row, by position."""
        return {
            position: np.cumsum([0, *(shard.rows.get(position, 0) for shard in self.entries)])
            for position in self.positions
        }

    def write(self, folder: Folder) -> None:
        """Write ``manifest.json``; one line per shard."""
        plain = {
            "format_version": STORE_FORMAT,
            "package_version": self.package_version,
            "fingerprint": self.fingerprint,
            "provenance": json.loads(canonical_json(asdict(self.provenance))),
            "dtype": self.dtype,
            "facts": dict(self.facts),
            "layout": dict(self.layout),
            "sites": {site.hook_name: width for site, width in self.widths.items()},
            "positions": dict(self.positions),
            "table": asdict(self.table),
            "complete": self.complete,
            "shards": [],
        }
        shards = [json.dumps(None if s is None else plain_entry(s)) for s in self.shards]
        text = json.dumps(plain, indent=1, ensure_ascii=False).removesuffix("[]\n}")
        text += "[\n  " + ",\n  ".join(shards) + "\n ]\n}\n"
        folder.write(MANIFEST, text.encode())


def plain_entry(entry: ShardEntry) -> dict[str, Any]:
    """An entry as JSON has it."""
    return {**asdict(entry), "rows": dict(entry.rows)}


def shard_file(shard: int) -> str:
    """Name of a shard's file."""
    return f"{SHARDS}/{shard:05d}.safetensors"


def receipt_file(shard: int) -> str:
    """Name of what says that a shard is finished, until the manifest does."""
    return f"{SHARDS}/{shard:05d}.json"


def read_manifest(folder: Folder, *, unfinished: bool = False) -> Manifest:
    """Read and check the manifest, and nothing else.

    Args:
        folder: Of the store.
        unfinished: Whether a store that is not complete will do.

    Raises:
        ArtefactError: If it is missing, damaged, of another format, or not complete.
        MismatchError: If it is another kind of artefact.
    """
    if folder.size(MANIFEST) is None:
        raise ArtefactError(f"There is no activation store in {folder.where} (no {MANIFEST}).")
    name = folder.file(MANIFEST)
    try:
        plain = json.loads(folder.read(MANIFEST))
        _check_format(folder, plain)
        manifest = _parse(name, plain)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, UnknownNameError) as e:
        raise ArtefactError(
            f"{name} is damaged ({type(e).__name__}: {e}); delete the store and capture again."
        ) from e
    if not (manifest.complete or unfinished):
        done = {shard_file(i) for i, shard in enumerate(manifest.shards) if shard is not None}
        for receipt in folder.names(SHARDS):
            if receipt.endswith(".json"):
                done.add(f"{SHARDS}/{receipt.removesuffix('.json')}.safetensors")
        raise ArtefactError(
            f"{folder.where} is not finished ({len(done)} of {len(manifest.shards)} shards); run "
            "the same capture again."
        )
    return manifest


def _check_format(folder: Folder, plain: Mapping[str, Any]) -> None:
    version = int(plain["format_version"])
    if version > STORE_FORMAT:
        raise ArtefactError(
            f"{folder.where} has format {version}, newer than the {STORE_FORMAT} this version "
            "reads; upgrade affectlens."
        )
    kind = plain["provenance"]["kind"]
    if kind != "activations":
        raise MismatchError(f"{folder.where} holds a {kind}, not activations.")
    if version < STORE_FORMAT:
        raise ArtefactError(
            f"{folder.where} was made by an older version of affectlens; delete it and capture "
            "again."
        )


def _parse(name: str, plain: Mapping[str, Any]) -> Manifest:
    dtype = str(plain["dtype"])
    torch_dtype(dtype)
    manifest = Manifest(
        fingerprint=str(plain["fingerprint"]),
        provenance=Provenance(**plain["provenance"]),
        package_version=str(plain["package_version"]),
        dtype=dtype,
        facts=dict(plain["facts"]),
        layout=dict(plain["layout"]),
        widths={Site.parse(site): _count(w, 1) for site, w in plain["sites"].items()},
        positions={str(p): _count(n, 1) for p, n in plain["positions"].items()},
        table=_entry(name, plain["table"], TABLE),
        shards=tuple(
            None if shard is None else shard_entry(name, shard, i)
            for i, shard in enumerate(plain["shards"])
        ),
        complete=plain["complete"] is True,
    )
    if not manifest.widths or not manifest.positions or not manifest.shards:
        raise ValueError("it holds nothing")
    row_bytes = sum(manifest.widths.values()) * DTYPES[dtype].itemsize
    for shard in manifest.entries:
        if not set(shard.rows).issubset(manifest.positions):
            raise ValueError(f"{shard.file} has rows of unknown positions")
        if shard.bytes <= sum(shard.rows.values()) * row_bytes:
            raise ValueError(f"{shard.file} is too small for its rows")
    if manifest.complete:
        if len(manifest.entries) != len(manifest.shards):
            raise ValueError("it lacks shards, and says it is complete")
        for position, n in manifest.positions.items():
            if int(manifest.starts[position][-1]) != n:
                raise ValueError(f"the shards have not {n} rows of {position}")
    return manifest


def shard_entry(name: str, plain: Mapping[str, Any], shard: int) -> ShardEntry:
    """A shard's entry in a manifest or receipt, checked.

    Raises:
        ArtefactError: If it names another file.
        ValueError, TypeError, KeyError: If it is damaged in another way.
    """
    entry = _entry(name, plain, shard_file(shard))
    rows = {str(position): _count(n) for position, n in plain["rows"].items()}
    return ShardEntry(entry.file, entry.bytes, entry.sha256, rows)


def _entry(name: str, plain: Mapping[str, Any], file: str) -> FileEntry:
    if plain["file"] != file:
        raise ArtefactError(f"{name} names a file that is not of the store; do not use it.")
    if _SHA.fullmatch(plain["sha256"]) is None:
        raise ValueError(f"{file} has no checksum")
    return FileEntry(file, _count(plain["bytes"]), plain["sha256"])


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 60:
        raise ValueError(f"{value!r} is no number of rows or bytes")
    return value


def new_manifest(
    provenance: Provenance,
    dtype: str,
    facts: Mapping[str, Any],
    layout: Mapping[str, Any],
    widths: Mapping[Site, int],
    positions: Mapping[str, int],
    table: FileEntry,
    shards: int,
) -> Manifest:
    """The manifest of a store of which nothing is written yet."""
    return Manifest(
        fingerprint=provenance.fingerprint,
        provenance=provenance,
        package_version=package_version(),
        dtype=dtype,
        facts=facts,
        layout=layout,
        widths=widths,
        positions=positions,
        table=table,
        shards=(None,) * shards,
        complete=False,
    )


def row_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The label table, from all its columns (``stored`` may be left out)."""
    needed("pyarrow", "A store of activations")
    import pyarrow as pa

    kinds = {"token": pa.int32(), "tokens": pa.int32(), STORED: pa.int64()}
    names = [name for name in (*LABELS, STORED) if name != STORED or name in columns]
    fields = [(name, kinds.get(name, pa.string())) for name in names]
    return pa.table({name: columns[name] for name in names}, schema=pa.schema(fields))


def label_table(labels: Mapping[str, Sequence[Any]], n: int, position: str) -> pa.Table:
    """The table of rows from elsewhere; labels that are not given get their defaults."""
    columns: dict[str, Sequence[Any]] = {name: [None] * n for name in LABELS}
    columns["id"] = [str(i) for i in range(n)]
    columns["position"] = [position] * n
    columns["token"], columns["tokens"] = [0] * n, [1] * n
    if "group" in labels:
        columns["scenario"] = labels["group"]
    return row_table({**columns, **labels})
