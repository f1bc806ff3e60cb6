"""Writing a store: buffers in memory or mapped files in a temporary folder, then one rename."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.activations import files
from affectlens.activations.files import StoredArray
from affectlens.activations.manifest import MANIFEST, TABLE
from affectlens.activations.store import ActivationStore
from affectlens.core.artefact import (
    FORMAT_VERSION,
    Provenance,
    file_fingerprint,
    package_version,
    write_json,
)
from affectlens.core.errors import ArtefactError
from affectlens.core.sites import Site


class StoreWriter:
    """Takes rows in any order and gives the finished store.

    Args:
        widths: What is stored, with the width of each site.
        rows: How many rows each position has.
        dtype: Name in `files.DTYPES`.
        provenance: What makes the store.
        folder: Where the files go; None keeps everything in memory.
    """

    def __init__(
        self,
        widths: Mapping[Site, int],
        rows: Mapping[str, int],
        dtype: str,
        provenance: Provenance,
        folder: Path | None,
    ) -> None:
        self.dtype, self._provenance, self._folder = dtype, provenance, folder
        self._buffers: dict[tuple[Site, str], Tensor] = {}
        self._names: dict[tuple[Site, str], str] = {}
        for position, n in rows.items():
            for site, width in widths.items():
                key = (site, position)
                if folder is None:
                    self._buffers[key] = torch.zeros(n, width, dtype=files.torch_dtype(dtype))
                    continue
                self._names[key] = f"{position.replace(':', '-')}/{site.hook_name}.safetensors"
                path = folder / self._names[key]
                path.parent.mkdir(exist_ok=True)
                header = _header(provenance, site, position)
                self._buffers[key] = files.create(path, (n, width), dtype, header)

    def write(self, site: Site, position: str, rows: Tensor, values: Tensor) -> None:
        """Put rows where they belong.

        Args:
            site: One of the sites.
            position: One of the positions.
            rows: Row numbers, ``[n]``, on the CPU.
            values: Rows, ``[n, width]``, on the CPU.
        """
        buffer = self._buffers[site, position]
        buffer[rows] = values.to(buffer.dtype)

    def finish(self, table: Any, facts: Mapping[str, Any]) -> ActivationStore:
        """Write table and manifest.

        Args:
            table: Labels of the rows, position by position (see `ActivationStore.rows`).
            facts: What the manifest says beyond that (design, counts).
        """
        if self._folder is None:
            arrays = {key: StoredArray.of_tensor(t) for key, t in self._buffers.items()}
            return ActivationStore(arrays, table, self._provenance, self.dtype, facts)
        import pyarrow.parquet as pq

        shapes = {key: tuple(buffer.shape) for key, buffer in self._buffers.items()}
        self._buffers.clear()  # unmap before the files are read back
        pq.write_table(table, self._folder / TABLE)
        entries = list[dict[str, Any]]()
        for (site, position), name in self._names.items():
            entry = {"site": site.hook_name, "position": position}
            n, width = shapes[site, position]
            entries.append({**entry, "rows": n, "width": width, **self._file(name)})
        manifest = {
            "format_version": FORMAT_VERSION,
            "package_version": package_version(),
            "provenance": asdict(self._provenance),
            "dtype": self.dtype,
            "facts": dict(facts),
            "table": self._file(TABLE),
            "arrays": entries,
        }
        write_json(self._folder / MANIFEST, manifest)
        for inner in {path.parent for path in self._folder.glob("*/*")}:
            files.sync(inner)
        return ActivationStore.open(self._folder)

    def _file(self, name: str) -> dict[str, Any]:
        assert self._folder is not None
        path = self._folder / name
        files.sync(path)
        return {"file": name, "bytes": path.stat().st_size, "sha256": file_fingerprint(path)}


def _header(provenance: Provenance, site: Site, position: str) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "package_version": package_version(),
        "provenance": asdict(provenance),
        "extra": {"site": site.hook_name, "position": position},
    }


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """Yield a temporary folder beside ``out``; rename it to ``out`` at the end, or leave nothing.

    An activation store that is already there is replaced, anything else is not.

    Raises:
        ArtefactError: If ``out`` holds something else, cannot be written, or the disk is full.
    """
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or _empty(out))):
        raise ArtefactError(f"{out} exists and is no activation store; choose another folder.")
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        temporary.chmod(0o755)
        yield temporary
        files.sync(temporary)
        _replace(temporary, out)
        files.sync(out.parent)
    except OSError as error:
        raise files.disk_error(out, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _replace(new: Path, out: Path) -> None:
    if not out.exists() or _empty(out):
        new.replace(out)
        return
    old = new.with_suffix(".old")
    out.replace(old)
    try:
        new.replace(out)
    except OSError:
        old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_store(store: ActivationStore, out: Path) -> ActivationStore:
    """Write the rows a store keeps to a folder and open that; see `ActivationStore.save`."""
    widths = {site: store.width(site) for site in store.sites}
    rows = {position: len(store.column("id", position)) for position in store.positions}
    with new_folder(out) as folder:
        writer = StoreWriter(widths, rows, store.dtype, store.provenance, folder)
        for position, n in rows.items():
            for site in store.sites:
                values = store.tensor(site, position)
                writer.write(site, position, torch.arange(n), values)
        writer.finish(store.rows, store.facts)
    return ActivationStore.open(out)
