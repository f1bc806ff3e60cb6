"""Reading rows: by site and position, some of them by label or number, in the corpus's order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.positions import DEFAULT_POSITIONS
from affectlens.activations.store.label_table import Ints, Labels, as_mask
from affectlens.activations.store.manifest import LABELS
from affectlens.activations.store.minibatches import BATCH_SIZE, Batch, batches
from affectlens.activations.store.row_choice import Mask, Rows, is_one_of, row_numbers
from affectlens.activations.store.row_sources import ShardSource, Source
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.emotions import emotion_name, inferred_labels
from affectlens.core.errors import DataError, UnknownNameError, unknown
from affectlens.core.places import Site, expand_sites

if TYPE_CHECKING:
    import pyarrow as pa


class StoredRows:
    """Rows of a store, all of them or a selection; `ActivationStore` is what users hold.

    Args:
        source: The numbers.
        labels: What each row is.
        provenance: What made them.
        dtype: Of the numbers stored.
        facts: ``design`` of the corpus, counts of texts skipped and cut.
        keep: Which rows of the table are selected; None for all.
    """

    def __init__(
        self,
        source: Source,
        labels: Labels,
        provenance: Provenance,
        dtype: str,
        facts: Mapping[str, Any],
        keep: Mask | None = None,
    ) -> None:
        self._source, self._labels, self._keep = source, labels, keep
        self.provenance = provenance
        self.dtype = dtype
        self.facts = dict(facts)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """What was captured, by layer."""
        return tuple(self._source.widths)

    @cached_property
    def positions(self) -> tuple[str, ...]:
        """Which positions were captured (and still have rows)."""
        names = tuple(self._labels.ranges)
        return names if self._keep is None else tuple(n for n in names if self._mask(n).any())

    @property
    def design(self) -> str:
        """Design of the corpus ("" if unknown)."""
        return str(self.facts.get("design", ""))

    @cached_property
    def label_set(self) -> tuple[str, ...]:
        """The labels that rows may have, in order: the corpus's, or those selected of them.

        Of rows from elsewhere: ours (`affectlens.core.TONES`), or, if others occur, those that do.
        """
        named = self.facts.get("labels")
        if named is not None:
            return tuple(str(label) for label in cast("list[Any]", named))
        found = {str(e) for p in self.positions for e in self.column("emotion", p) if e is not None}
        return inferred_labels(found)

    @cached_property
    def rows(self) -> pa.Table:
        """Labels of the rows kept, of all positions: the columns :data:`LABELS`."""
        every = self._labels.table()
        return every if self._keep is None else every.filter(as_mask(self._keep))

    @cached_property
    def fingerprint(self) -> str:
        """Of what made it and of which rows are kept."""
        if self._keep is None:
            return self.provenance.fingerprint
        return fingerprint(self.provenance.fingerprint, np.packbits(self._keep).tobytes().hex())

    def __len__(self) -> int:
        every = sum(len(rows) for rows in self._labels.ranges.values())
        return every if self._keep is None else int(self._keep.sum())

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
        return self._source.widths[site]

    def column(self, name: str, position: str | None = None) -> list[Any]:
        """One label of every row of a position."""
        return self.labels([name], position).column(name).to_pylist()

    def labels(self, names: Sequence[str] = LABELS, position: str | None = None) -> pa.Table:
        """Some labels of every row of a position; only these columns are read.

        Raises:
            UnknownNameError: If there is no such column or position.
        """
        return self._labels_of(names, self.default_position(position))

    def _labels_of(self, names: Sequence[str], position: str, *, coded: bool = False) -> pa.Table:
        for name in names:
            if name not in LABELS:
                raise unknown("column", name, LABELS)
        found = self._labels.table(names, position, coded=coded)
        return found if self._keep is None else found.filter(as_mask(self._mask(position)))

    def array(
        self, site: Site | str, position: str | None = None, rows: Rows | None = None
    ) -> np.ndarray[Any, Any]:
        """Rows of one site, ``[n, width]``, in the stored dtype.

        bfloat16 and int8 come as float32: numpy has no bfloat16, and eight bits need their scales.
        """
        values = self.tensor(site, position, rows)
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()

    def tensor(
        self, site: Site | str, position: str | None = None, rows: Rows | None = None
    ) -> Float[Tensor, "n width"]:
        """Rows of one site in the stored dtype (int8: float32); only these are read.

        Args:
            site: Where.
            position: Which tokens; default: as `default_position`.
            rows: Row numbers within the position, or a slice of them; default: all rows.

        Raises:
            UnknownNameError: If there is no such site or position.
            DataError: If there are no such rows.
            ArtefactError: If a file is missing or damaged.
        """
        site, chosen = self._checked(site), self.default_position(position)
        kept = None if self._keep is None else self._mask(chosen).nonzero()[0]
        if rows is not None:
            n = len(self._labels.ranges[chosen]) if kept is None else len(kept)
            numbers = row_numbers(rows, n)
            kept = numbers if kept is None else kept[numbers]
        return self._source.read(site, chosen, kept)

    def to_torch(
        self, site: Site | str, position: str | None = None, rows: Rows | None = None
    ) -> Float[Tensor, "n width"]:
        """As `tensor`, in float32, a copy."""
        values = self.tensor(site, position, rows)
        mine = isinstance(self._source, ShardSource) or rows is not None
        return values.float() if mine else values.to(torch.float32, copy=True)

    def to_numpy(
        self, site: Site | str, position: str | None = None, rows: Rows | None = None
    ) -> np.ndarray[Any, Any]:
        """As `to_torch`, as an array."""
        return self.to_torch(site, position, rows).numpy()

    def pattern(
        self, site: Site | str, position: str | None = None, rows: Rows | None = None
    ) -> Float[Tensor, "n head key"]:
        """Attention weights of a ``pattern`` site: over the text's tokens, zero beyond its end.

        Raises:
            DataError: If the site holds something else.
        """
        site = self._checked(site)
        heads = int(self.facts.get("n_heads", 0))
        if site.kind != "pattern" or heads < 1:
            raise DataError(f"{site.hook_name} holds no attention pattern; read it with to_torch.")
        values = self.to_torch(site, position, rows)
        return values.view(len(values), heads, -1)

    def storage_order(self, position: str | None = None) -> Ints:
        """Row numbers of a position in the order in which they lie: the fast order to read them."""
        chosen = self.default_position(position)
        order = self._source.order(chosen)
        if self._keep is not None:
            order = order[self._mask(chosen)]
        return np.argsort(order, kind="stable")

    def batches(
        self,
        site: Site | str,
        position: str | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        shuffle: bool = True,
        seed: int = 0,
        columns: Sequence[str] = (),
    ) -> Iterator[Batch]:
        """Every row of a site once, in mini-batches, in bounded memory.

        Args:
            site: Where.
            position: Which tokens; default: as `default_position`.
            batch_size: Rows per batch; the last one has what is left.
            shuffle: Whether in random order, by blocks, as `store.minibatches` says. Else
                in the order of the corpus, which reads the disk here and there and is slower.
            seed: Of that order.
            columns: Labels to give along.

        Raises:
            UnknownNameError: If there is no such site, position or column.
            DataError: If the batch size is not positive.
        """
        site, chosen = self._checked(site), self.default_position(position)
        if batch_size < 1:
            raise DataError(f"Batches need at least one row, not {batch_size}.")
        labels = self._labels_of(columns, chosen, coded=True) if columns else None
        kept = None if self._keep is None else self._mask(chosen).nonzero()[0]
        return batches(self._source, site, chosen, kept, labels, batch_size, shuffle, seed)

    def select(
        self,
        mask: Sequence[bool] | np.ndarray[Any, Any] | None = None,
        **labels: str | int | Collection[Any] | None,
    ) -> Self:
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
        facts = self.facts
        for name, wanted in labels.items():
            if name not in LABELS:
                raise unknown("column", name, LABELS)
            if name == "emotion" and wanted is not None:
                wanted = self._label_names(wanted)
                named = tuple(label for label in self.label_set if label in wanted)
                facts = {**facts, "labels": list(named)}
            column = self._labels.table([name], coded=True).column(name)
            if self._keep is not None:
                column = column.filter(as_mask(self._keep))
            kept &= is_one_of(name, column, wanted)
        if not kept.any():
            raise DataError("No activations are left after this selection; widen it.")
        combined = kept if self._keep is None else self._keep.copy()
        if self._keep is not None:
            combined[self._keep] = kept
        keep = None if combined.all() else combined
        return type(self)(self._source, self._labels, self.provenance, self.dtype, facts, keep)

    def _label_names(self, wanted: str | int | Collection[Any]) -> list[Any]:
        """Labels as users type them (`emotion_name`); what is none stays as it is."""
        names = [wanted] if isinstance(wanted, (str, int)) else list(wanted)
        found: list[Any] = []
        for name in names:
            try:
                found.append(emotion_name(name, self.label_set) if isinstance(name, str) else name)
            except UnknownNameError:
                found.append(name)
        return found

    def _checked(self, site: Site | str) -> Site:
        site = Site.parse(site) if isinstance(site, str) else site
        if site not in self._source.widths:
            raise unknown("site", site.hook_name, [s.hook_name for s in self.sites])
        return site

    def _mask(self, position: str) -> Mask:
        """Which rows of a position are kept."""
        rows = self._labels.ranges[position]
        assert self._keep is not None
        return self._keep[rows.start : rows.stop]
