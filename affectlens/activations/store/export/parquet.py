"""Parquet: all labels, and beside them the rows as lists of float32 numbers."""

from __future__ import annotations

from pathlib import Path

from affectlens.activations.store.export.format import ExportFormat, chunks
from affectlens.activations.store.store import ActivationStore
from affectlens.core.places import Site


def _write(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels, width = store.labels(position=position), store.width(site)
    kind = pa.list_(pa.float32(), width)
    schema = labels.schema.append(pa.field("values", kind))
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for values in chunks(store, site, position):
            numbers = pa.array(values.float().numpy().reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
            some = labels.slice(start, len(values))
            writer.write_table(some.append_column("values", column))
            start += len(values)


PARQUET = ExportFormat(
    "parquet", "All labels, and the column values with a list of float32 numbers a row", _write
)
