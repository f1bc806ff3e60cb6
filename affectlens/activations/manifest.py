"""What a store's folder says about itself: the manifest, and the table of labels.

``manifest.json`` names what made the store and every file with its size and checksum;
``rows.parquet`` holds the labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from affectlens.activations.files import StoredArray, torch_dtype
from affectlens.core.artefact import FORMAT_VERSION, Provenance, file_fingerprint, read_json
from affectlens.core.errors import ArtefactError, MismatchError, UnknownNameError
from affectlens.core.sites import Site

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
TABLE = "rows.parquet"
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


@dataclass(frozen=True, eq=False)
class Manifest:
    """What `read_manifest` found; the fields are those of `ActivationStore`."""

    arrays: Mapping[tuple[Site, str], StoredArray]
    rows: pa.Table
    provenance: Provenance
    dtype: str
    facts: Mapping[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest and the labels of a store, and check that its files are all there.

    Raises:
        ArtefactError: If something is missing, cut short, damaged, or of a newer format.
        MismatchError: If it is another kind of artefact.
    """
    if not (folder / MANIFEST).is_file():
        raise ArtefactError(f"There is no activation store in {folder} (no {MANIFEST}).")
    manifest = read_json(folder / MANIFEST)
    try:
        return _checked(folder, manifest)
    except (AttributeError, KeyError, TypeError, ValueError, UnknownNameError) as error:
        raise ArtefactError(
            f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}); capture again."
        ) from error


def _checked(folder: Path, manifest: Mapping[str, Any]) -> Manifest:
    import pyarrow as pa
    import pyarrow.parquet as pq

    version = int(manifest["format_version"])
    if version > FORMAT_VERSION:
        raise ArtefactError(
            f"{folder} has format {version}, newer than the {FORMAT_VERSION} this version reads; "
            "upgrade affectlens."
        )
    provenance = Provenance(**manifest["provenance"])
    if provenance.kind != "activations":
        raise MismatchError(f"{folder} holds a {provenance.kind}, not activations.")
    dtype = str(manifest["dtype"])
    torch_dtype(dtype)
    arrays = {
        (Site.parse(entry["site"]), str(entry["position"])): StoredArray(
            (int(entry["rows"]), int(entry["width"])),
            dtype,
            _checked_file(folder, entry),
            sha256=str(entry["sha256"]),
        )
        for entry in manifest["arrays"]
    }
    table = _checked_file(folder, manifest["table"])
    if file_fingerprint(table) != manifest["table"]["sha256"]:
        raise ArtefactError(f"{table} is not the file that was written; capture again.")
    try:
        rows = pq.read_table(table)
    except pa.ArrowException as error:
        raise ArtefactError(f"{table} cannot be read ({error}); capture again.") from error
    labelled = Counter(cast("list[str]", rows.column("position").to_pylist()))
    if any(labelled[position] != array.shape[0] for (_, position), array in arrays.items()):
        raise ArtefactError(f"{folder} has not as many labels as rows; capture again.")
    return Manifest(arrays, rows, provenance, dtype, dict(manifest["facts"]))


def _checked_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """A file of the manifest, inside the folder and of the right size."""
    name = PurePosixPath(str(entry["file"]))
    if name.is_absolute() or ".." in name.parts:
        raise ArtefactError(f"{folder / MANIFEST} names a file outside its folder; do not use it.")
    path = folder / name
    if not path.is_file():
        raise ArtefactError(f"{path} is missing; capture again.")
    if path.stat().st_size != int(entry["bytes"]):
        raise ArtefactError(
            f"{path} is cut short ({path.stat().st_size} of {entry['bytes']} bytes); capture again."
        )
    return path


def row_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The label table, from all its columns."""
    import pyarrow as pa

    numbers = ("token", "tokens")
    fields = [(name, pa.int32() if name in numbers else pa.string()) for name in LABELS]
    return pa.table({name: columns[name] for name in LABELS}, schema=pa.schema(fields))


def label_table(labels: Mapping[str, Sequence[Any]], n: int, position: str) -> pa.Table:
    """The table of rows from elsewhere; labels that are not given get their defaults."""
    columns: dict[str, Sequence[Any]] = {name: [None] * n for name in LABELS}
    columns["id"] = [str(i) for i in range(n)]
    columns["position"] = [position] * n
    columns["token"], columns["tokens"] = [0] * n, [1] * n
    if "group" in labels:
        columns["scenario"] = labels["group"]
    return row_table({**columns, **labels})
