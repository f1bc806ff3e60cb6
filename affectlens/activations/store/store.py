"""The activation store: rows per site and position, and one table of labels.

On disk: ``manifest.json`` (what made it, sizes, checksums), ``rows.parquet`` (labels) and
``shards/*.safetensors``, each with all sites and positions of some texts, so that a capture writes
one file at a time and can go on after a crash. One site of it is read without touching the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from affectlens.activations.store.copying import copy_rows
from affectlens.activations.store.folder import Folder, open_folder
from affectlens.activations.store.info import StoreInfo, disk_info, memory_info
from affectlens.activations.store.label_table import LabelFile, LabelTable
from affectlens.activations.store.manifest import LABELS, Manifest, label_table, read_manifest
from affectlens.activations.store.reading import StoredRows
from affectlens.activations.store.row_sources import MemorySource, ShardSource
from affectlens.activations.store.shard_file import dtype_name
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.places import Site

if TYPE_CHECKING:
    import pyarrow as pa


class ActivationStore(StoredRows, Displayed):
    """Activations of a corpus; from `open`, `of` or `in_memory`.

    Rows come in the order of the corpus, whatever their order on disk.

    Attributes:
        provenance: What made it.
        dtype: Of the numbers stored.
        facts: ``design`` of the corpus, counts of texts skipped and cut.
    """

    @classmethod
    def open(cls, where: str | Path | Folder) -> ActivationStore:
        """Open a folder or URL; only the manifest is read.

        Raises:
            ArtefactError: If it is missing, not finished, damaged, or of another format.
            MismatchError: If it is another kind of artefact.
        """
        folder = open_folder(where)
        found = read_manifest(folder)
        labels = LabelFile(folder, found.table, found.positions)
        source = ShardSource(folder, found)
        return cls(source, labels, found.provenance, found.dtype, found.facts)

    @classmethod
    def in_memory(
        cls,
        arrays: Mapping[tuple[Site, str], Tensor],
        table: pa.Table,
        provenance: Provenance,
        facts: Mapping[str, Any],
    ) -> ActivationStore:
        """Wrap tensors.

        Args:
            arrays: ``[n, width]`` by site and position, on the CPU, one dtype.
            table: With the columns :data:`LABELS`, position by position, each in the order of its
                tensors.
            provenance: What made them.
            facts: Design of the corpus, counts.

        Raises:
            UnknownNameError: If their dtype is none that can be stored.
        """
        dtype = dtype_name(next(iter(arrays.values())).dtype)
        labels = LabelTable(table.select(list(LABELS)))
        return cls(MemorySource(dict(arrays)), labels, provenance, dtype, facts)

    @classmethod
    def of(
        cls,
        arrays: Mapping[Site, Tensor],
        labels: Mapping[str, Sequence[Any]],
        *,
        position: str = "mean:reply",
        design: str = "",
        provenance: Provenance | None = None,
    ) -> ActivationStore:
        """Make a store of activations from elsewhere, in memory.

        Args:
            arrays: Rows per site, ``[n, width]``, one dtype.
            labels: Columns of :data:`LABELS`, one value per row; ``id`` defaults to row numbers,
                ``scenario`` to ``group``, the others to nothing.
            position: Where they were read.
            design: Design of the corpus they come from.
            provenance: What made them; default: a hash of the numbers.

        Raises:
            DataError: If the lengths differ, or a number is NaN or infinite.
        """
        n = len(next(iter(arrays.values())))
        lengths = {len(v) for v in (*arrays.values(), *labels.values())}
        if lengths != {n}:
            raise DataError(f"Give every row its labels: the lengths are {sorted(lengths)}.")
        for site, values in arrays.items():
            if not bool(values.isfinite().all()):
                raise DataError(f"The rows of {site.hook_name} hold NaN or infinity; drop them.")
        table = label_table(labels, n, position)
        if provenance is None:
            content = [
                values.detach().cpu().float().numpy().tobytes() for values in arrays.values()
            ]
            names = [site.hook_name for site in arrays]
            sample = {"sites": names, "sha": fingerprint(*content, table.to_pydict())}
            provenance = Provenance("activations", parameters=sample)
        stored = {(site, position): v.detach().cpu() for site, v in arrays.items()}
        return cls.in_memory(stored, table, provenance, {"design": design})

    @property
    def folder(self) -> Folder | None:
        """Where it lies; None for memory."""
        return self._source.folder if isinstance(self._source, ShardSource) else None

    @property
    def path(self) -> Path | None:
        """Its path, if it lies on this machine."""
        return None if self.folder is None else self.folder.path

    @property
    def manifest(self) -> Manifest | None:
        """What its folder says of it; None for memory."""
        return self._source.manifest if isinstance(self._source, ShardSource) else None

    def brief(self) -> dict[str, object]:
        """Sites, positions, rows, dtype, model."""
        return {
            "sites": len(self.sites),
            "positions": "+".join(self.positions),
            "rows": len(self),
            "dtype": self.dtype,
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Labels of all rows, position by position."""
        return self.rows.to_pylist()

    def info(self) -> StoreInfo:
        """Sizes, counts and what made it, from the manifest alone."""
        if isinstance(self._source, ShardSource):
            return disk_info(self._source)
        counts = {name: len(rows) for name, rows in self._labels.ranges.items()}
        return memory_info(self._source.widths, counts, self.dtype, self.facts, self.provenance)

    def save(self, out: str | Path) -> ActivationStore:
        """Write the rows kept to a folder or URL and open that; a store there is replaced.

        Raises:
            ArtefactError: If it holds something else, cannot be written, or the disk is full.
        """
        target = open_folder(out)
        if self.folder is not None and _place(self.folder) == _place(target):
            raise ArtefactError(f"{target.where} is this store itself; choose another folder.")
        copy_rows(self, target)
        return type(self).open(target)

    def verify(self) -> None:
        """Compare every file with its checksum, which `open` does not take the time for.

        Raises:
            ArtefactError: Naming every file that differs, and how.
        """
        if not isinstance(self._source, ShardSource):
            return
        folder, found = self._source.folder, self._source.manifest
        files = [found.table, *found.entries]
        wrong = [f"{entry.file} {what}" for entry in files if (what := entry.damage(folder))]
        if wrong:
            raise ArtefactError(
                f"{folder.where} is damaged: {'; '.join(wrong)}. Run the same capture again: only "
                "these files are made anew."
            )


def _place(folder: Folder) -> str:
    return folder.where if folder.path is None else str(folder.path.resolve())
