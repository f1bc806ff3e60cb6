"""Rows as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affectlens.core.artefact import atomic_write
from affectlens.core.extras import needed


def write_parquet(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of plain values, atomically; a value that a row lacks is null.

    Raises:
        ArtefactError: If the folder cannot be written or the disk is full; nothing is left behind.
        ModelError: If pyarrow is not installed.
    """
    needed("pyarrow", "A Parquet file")
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    atomic_write(Path(path), lambda temporary: pq.write_table(table, temporary))
