"""Rows of one site in the formats of others: a file of this package and a row here for each.

Rows are in the order of the corpus, and never all in memory.
"""

from __future__ import annotations

from pathlib import Path

from affectlens.activations.store.export.format import ExportFormat
from affectlens.activations.store.export.npy import NPY
from affectlens.activations.store.export.parquet import PARQUET
from affectlens.activations.store.export.safetensors import SAFETENSORS
from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import atomic_write
from affectlens.core.errors import ArtefactError
from affectlens.core.places import Site
from affectlens.core.registry import Registry

__all__ = ["FORMATS", "ExportFormat", "export"]

FORMATS: Registry[ExportFormat] = Registry("format", NPY, PARQUET, SAFETENSORS)


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
    chosen_format = FORMATS[format]
    site = Site.parse(site) if isinstance(site, str) else site
    (site,) = store.default_sites(site)
    chosen, path = store.default_position(position), Path(out)
    if path.is_dir():
        raise ArtefactError(f"{path} is a folder; name a file in it.")
    atomic_write(path, lambda temporary: chosen_format.write(store, temporary, site, chosen))
    return path
