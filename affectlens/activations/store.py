"""The activation store: rows per site and position, and one table of labels.

On disk: ``manifest.json`` (what made it, sizes, checksums), ``rows.parquet`` (labels) and one
safetensors file per site and position, each readable alone and without reading it whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.files import StoredArray
from affectlens.activations.manifest import label_table, read_manifest
from affectlens.activations.positions import DEFAULT_POSITIONS
from affectlens.core.artefact import Provenance, file_fingerprint, fingerprint
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.sites import Site, expand_sites

if TYPE_CHECKING:
    import pyarrow as pa


class ActivationStore:
    """Activations of a corpus.

    Args:
        arrays: By site and position; all arrays of a position have the same number of rows.
        rows: Table with the columns :data:`LABELS`; the rows of a position are in the order of its
            arrays.
        provenance: What made it.
        dtype: Of the numbers stored.
        facts: ``design`` of the corpus, counts of texts skipped and cut.
        path: Where it lies, or None for memory.
    """

    def __init__(
        self,
        arrays: Mapping[tuple[Site, str], StoredArray],
        rows: pa.Table,
        provenance: Provenance,
        dtype: str,
        facts: Mapping[str, Any],
        path: Path | None = None,
        keep: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self._all_rows = rows
        self.provenance = provenance
        self.dtype = dtype
        self.facts = dict(facts)
        self.path = path
        self._keep = keep

    @classmethod
    def open(cls, path: str | Path) -> ActivationStore:
        """Open a folder; no activations are read yet.

        Raises:
            ArtefactError: If it is missing, incomplete, cut short, or of a newer format.
            MismatchError: If it is another kind of artefact.
        """
        found = read_manifest(Path(path))
        return cls(found.arrays, found.rows, found.provenance, found.dtype, found.facts, Path(path))

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
        stored = {(s, position): StoredArray.of_tensor(v.detach().cpu()) for s, v in arrays.items()}
        dtype = next(iter(stored.values())).dtype
        return cls(stored, table, provenance, dtype, {"design": design})

    @property
    def sites(self) -> tuple[Site, ...]:
        """What was captured, by layer."""
        return tuple(dict.fromkeys(site for site, _ in self._arrays))

    @cached_property
    def positions(self) -> tuple[str, ...]:
        """Which positions were captured (and still have rows)."""
        return tuple(dict.fromkeys(self.rows.column("position").to_pylist()))

    @property
    def design(self) -> str:
        """Design of the corpus ("" if unknown)."""
        return str(self.facts.get("design", ""))

    @cached_property
    def rows(self) -> pa.Table:
        """Labels of the rows kept, of all positions."""
        return self._all_rows if self._keep is None else self._all_rows.filter(self._keep)

    @cached_property
    def fingerprint(self) -> str:
        """Of what made it and of which rows are kept."""
        if self._keep is None:
            return self.provenance.fingerprint
        return fingerprint(self.provenance.fingerprint, np.packbits(self._keep).tobytes().hex())

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __repr__(self) -> str:
        return (
            f"ActivationStore({len(self.sites)} sites, positions {', '.join(self.positions)}, "
            f"{len(self)} rows, {self.dtype})"
        )

    def default_position(self, position: str | None = None) -> str:
        """The position asked for, the only one, or the one that suits the design.

        Raises:
            UnknownNameError: If it was not captured, or several were and none suits.
        """
        if position is None and len(self.positions) == 1:
            return self.positions[0]
        chosen = position or DEFAULT_POSITIONS.get(self.design, "")
        if chosen not in self.positions:
            raise unknown("position", chosen, self.positions)
        return chosen

    def default_sites(self, sites: str | Site | Iterable[str | Site] | None) -> tuple[Site, ...]:
        """The sites asked for, or all of them.

        Raises:
            UnknownNameError: If one was not captured.
        """
        if sites is None:
            return self.sites
        if isinstance(sites, str) and sites in {site.kind for site in self.sites}:
            return tuple(site for site in self.sites if site.kind == sites)
        wanted = expand_sites(sites, 1 + max(site.layer for site in self.sites))
        for site in wanted:
            if site not in self.sites:
                raise unknown("site", site.hook_name, [s.hook_name for s in self.sites])
        return wanted

    def width(self, site: Site) -> int:
        """Numbers per row at a site."""
        return self._arrays[site, self.positions[0]].shape[1]

    def column(self, name: str, position: str | None = None) -> list[Any]:
        """One label of every row of a position."""
        if name not in self.rows.column_names:
            raise unknown("column", name, self.rows.column_names)
        values, where = (self.rows.column(c).to_pylist() for c in (name, "position"))
        chosen = self.default_position(position)
        return [value for value, p in zip(values, where, strict=True) if p == chosen]

    def array(self, site: Site | str, position: str | None = None) -> np.ndarray[Any, Any]:
        """Rows of one site, ``[n, width]``; a read-only memory map unless rows were selected.

        bfloat16 comes as float32, for numpy has no such dtype.
        """
        stored, kept = self._stored(site, position)
        return stored.array() if kept is None else stored.array()[kept]

    def tensor(self, site: Site | str, position: str | None = None) -> Tensor:
        """Rows of one site in the stored dtype, mapped unless rows were selected."""
        stored, kept = self._stored(site, position)
        return stored.tensor() if kept is None else stored.tensor()[torch.from_numpy(kept)]

    def to_torch(self, site: Site | str, position: str | None = None) -> Float[Tensor, "n width"]:
        """Rows of one site in float32, a copy."""
        return self.tensor(site, position).to(torch.float32, copy=True)

    def to_numpy(self, site: Site | str, position: str | None = None) -> np.ndarray[Any, Any]:
        """Rows of one site in float32, a copy."""
        return self.to_torch(site, position).numpy()

    def _stored(
        self, site: Site | str, position: str | None
    ) -> tuple[StoredArray, np.ndarray[Any, Any] | None]:
        site = Site.parse(site) if isinstance(site, str) else site
        chosen = self.default_position(position)
        if (site, chosen) not in self._arrays:
            raise unknown("site", site.hook_name, [s.hook_name for s in self.sites])
        return self._arrays[site, chosen], self._kept.get(chosen)

    @cached_property
    def _kept(self) -> dict[str, np.ndarray[Any, Any]]:
        """Numbers of the rows kept within each position; nothing if all are."""
        if self._keep is None:
            return {}
        where = np.array(self._all_rows.column("position").to_pylist())
        return {name: self._keep[where == name].nonzero()[0] for name in self.positions}

    def select(
        self,
        mask: Sequence[bool] | np.ndarray[Any, Any] | None = None,
        **labels: str | Collection[str],
    ) -> ActivationStore:
        """Keep some rows; nothing is copied.

        Args:
            mask: One truth value per row of `rows`.
            **labels: Column and value, or several values: ``emotion=("anger", "fear")``,
                ``split="fit"``, ``role="direction"``, ``theme``, ``valence``, ``group``, ``id``.

        Raises:
            UnknownNameError: If there is no such column or value.
            DataError: If nothing is left, or the mask has another length.
        """
        kept = np.ones(len(self), dtype=bool) if mask is None else np.array(mask, dtype=bool)
        if kept.shape != (len(self),):
            raise DataError(f"A mask needs one value per row: {len(self)}, not {kept.shape}.")
        for name, wanted in labels.items():
            if name not in self.rows.column_names:
                raise unknown("column", name, self.rows.column_names)
            values = cast("list[Any]", self.rows.column(name).to_pylist())
            names = {wanted} if isinstance(wanted, str) else set(wanted)
            for missing in sorted(names.difference(values)):
                raise unknown(name, missing, sorted({str(v) for v in values if v is not None}))
            kept &= np.array([value in names for value in values])
        if not kept.any():
            raise DataError("No activations are left after this selection; widen it.")
        keep = np.ones(self._all_rows.num_rows, dtype=bool) if self._keep is None else self._keep
        combined = keep.copy()
        combined[keep] = kept
        return ActivationStore(
            self._arrays,
            self._all_rows,
            self.provenance,
            self.dtype,
            self.facts,
            self.path,
            None if combined.all() else combined,
        )

    def save(self, out: str | Path) -> ActivationStore:
        """Write the rows kept to a folder and open that.

        Raises:
            ArtefactError: As `affectlens.activations.writer.new_folder`.
        """
        from affectlens.activations.writer import save_store

        return save_store(self, Path(out))

    def verify(self) -> None:
        """Compare every file with its checksum, which `open` does not take the time for.

        Raises:
            ArtefactError: Naming the first file that differs.
        """
        for array in self._arrays.values():
            if array.path is not None and file_fingerprint(array.path) != array.sha256:
                raise ArtefactError(
                    f"{array.path} is not the file that was written; capture again."
                )
