"""Rows of one site in the formats of others.

| format | what is in the file |
| --- | --- |
| ``npy`` | one array ``[n, width]`` |
| ``safetensors`` | the same as the tensor ``x``, in the stored dtype, and what made it |
| ``parquet`` | all labels, and the column ``values`` with ``width`` float32 numbers per row |

NumPy has no bfloat16 and eight bits need their scales: those become float32. Rows are in the order
of the corpus, and never all in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.activations.store.shard_file import tensor_header, torch_dtype
from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import FORMAT_VERSION, atomic_write, canonical_json, package_version
from affectlens.core.errors import ArtefactError, unknown
from affectlens.core.places import Site

_CHUNK_BYTES = 32 << 20


def export(
    store: ActivationStore,
    out: str | Path,
    site: Site | str,
    position: str | None = None,
    format: str = "npy",
) -> Path:
    """Write the rows of one site and position to one file.

    Args:
        store: The rows it keeps are written.
        out: The file; one that is there is replaced.
        site: Which site.
        position: Which position; default: as `ActivationStore.default_position`.
        format: One of :data:`FORMATS`.

    Raises:
        UnknownNameError: If there is no such site, position or format.
        ArtefactError: If the file cannot be written; nothing is left behind.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    site = Site.parse(site) if isinstance(site, str) else site
    (site,) = store.default_sites(site)
    chosen, path = store.default_position(position), Path(out)
    if path.is_dir():
        raise ArtefactError(f"{path} is a folder; name a file in it.")
    atomic_write(path, lambda temporary: FORMATS[format](store, temporary, site, chosen))
    return path


def _chunks(store: ActivationStore, site: Site, position: str) -> Iterator[Tensor]:
    n, step = _rows(store, position), max(1, _CHUNK_BYTES // (4 * store.width(site)))
    for start in range(0, n, step):
        yield store.tensor(site, position, slice(start, start + step))


def _rows(store: ActivationStore, position: str) -> int:
    return len(store.storage_order(position))


def _npy(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    kind = torch_dtype(store.dtype)
    dtype = np.dtype(np.float16 if kind == torch.float16 else np.float32)
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (_rows(store, position), store.width(site)),
    }
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for values in _chunks(store, site, position):
            shown = values.float() if kind == torch.bfloat16 else values
            handle.write(np.ascontiguousarray(shown.numpy()).data)


def _safetensors(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    made_by = {
        "format_version": FORMAT_VERSION,
        "package_version": package_version(),
        "provenance": asdict(store.provenance),
        "extra": {"site": site.hook_name, "position": position, "rows": store.fingerprint},
    }
    shape = (_rows(store, position), store.width(site))
    with path.open("wb") as handle:
        header = tensor_header("x", shape, torch_dtype(store.dtype), canonical_json(made_by))
        handle.write(header)
        for values in _chunks(store, site, position):
            handle.write(values.contiguous().view(torch.uint8).numpy().data)


def _parquet(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels, width = store.labels(position=position), store.width(site)
    kind = pa.list_(pa.float32(), width)
    schema = labels.schema.append(pa.field("values", kind))
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for values in _chunks(store, site, position):
            numbers = pa.array(values.float().numpy().reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
            some = labels.slice(start, len(values))
            writer.write_table(some.append_column("values", column))
            start += len(values)


FORMATS: Mapping[str, Callable[[ActivationStore, Path, Site, str], None]] = {
    "npy": _npy,
    "parquet": _parquet,
    "safetensors": _safetensors,
}
