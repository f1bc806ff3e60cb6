"""The label table, in memory or in its Parquet file, of which only what is asked for is read."""

from __future__ import annotations

import io
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from affectlens.activations.store.folder import Folder
from affectlens.activations.store.manifest import LABELS, STORED, FileEntry
from affectlens.core.errors import ArtefactError
from affectlens.core.extras import needed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]
_GROUP_ROWS = 1 << 18  # rows of one row group, the unit that Parquet reads


class Labels(Protocol):
    """The labels of all rows of a store, position by position."""

    @property
    def ranges(self) -> Mapping[str, range]:
        """Where in the table the rows of each position are."""
        ...

    def table(
        self, names: Sequence[str] = LABELS, position: str | None = None, *, coded: bool = False
    ) -> pa.Table:
        """Some columns, of one position or of all.

        Args:
            names: Of the columns.
            position: Whose rows.
            coded: Whether strings may come dictionary-encoded, in less memory.
        """
        ...


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels in memory."""

    value: pa.Table

    @property
    def ranges(self) -> Mapping[str, range]:
        """As `Labels.ranges`."""
        return self._ranges

    @cached_property
    def _ranges(self) -> Mapping[str, range]:
        column = self.value.column("position").combine_chunks().dictionary_encode()
        changes = np.flatnonzero(np.diff(np.asarray(column.indices))) + 1
        cuts = [0, *(int(i) for i in changes), len(column)]
        return {column[a].as_py(): range(a, b) for a, b in pairwise(cuts) if b > a}

    def table(
        self, names: Sequence[str] = LABELS, position: str | None = None, *, coded: bool = False
    ) -> pa.Table:
        """As `Labels.table`."""
        del coded
        chosen = self.value.select(list(names))
        if position is None:
            return chosen
        rows = self.ranges[position]
        return chosen.slice(rows.start, len(rows))


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels in the table of a store.

    Attributes:
        folder: Of the store.
        entry: The file.
        positions: Rows of each position, in the order of the table.
    """

    folder: Folder
    entry: FileEntry
    positions: Mapping[str, int]

    @property
    def ranges(self) -> Mapping[str, range]:
        """As `Labels.ranges`."""
        cuts = pairwise(np.cumsum([0, *self.positions.values()]).tolist())
        return {name: range(a, b) for name, (a, b) in zip(self.positions, cuts, strict=True)}

    def table(
        self, names: Sequence[str] = LABELS, position: str | None = None, *, coded: bool = False
    ) -> pa.Table:
        """As `Labels.table`; reads the row groups and columns that are needed.

        Raises:
            ArtefactError: If the file is missing or not what was written.
        """
        strings = [name for name in names if name not in ("token", "tokens", STORED, "id")]
        with self._opened(position, strings if coded else []) as (file, groups, rows):
            found = file.read_row_groups(groups, columns=list(names), use_threads=False)
        return found.select(list(names)).slice(rows.start, len(rows))

    def stored(self, position: str) -> Ints:
        """The column ``stored`` of a position, as small as it may be, one row group at a time.

        Raises:
            ArtefactError: As `table`.
        """
        n = self.positions[position]
        out = np.empty(n, np.int32 if n < 1 << 31 else np.int64)
        done = 0
        with self._opened(position) as (file, groups, rows):
            first = -rows.start  # row of the position that a group begins with
            for group in groups:
                table = file.read_row_group(group, columns=[STORED], use_threads=False)
                for chunk in table.column(STORED).chunks:
                    # Not `to_numpy`: it imports pandas where there is one.
                    values = np.from_dlpack(chunk)[max(0, -first) : max(0, n - first)]
                    out[done : done + len(values)] = values
                    done += len(values)
                    first += len(chunk)
        return out

    @contextmanager
    def _opened(
        self, position: str | None, coded: Sequence[str] = ()
    ) -> Generator[tuple[pq.ParquetFile, list[int], range]]:
        """The file, the row groups that hold a position, and where in these its rows are."""
        needed("pyarrow", "A store of activations")
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = self.folder.file(self.entry.file)
        size = self.folder.size(self.entry.file)
        if size != self.entry.bytes:
            what = "is missing" if size is None else "is cut short or damaged"
            raise ArtefactError(f"{name} {what}; capture again.")
        total = sum(self.positions.values())
        rows = range(total) if position is None else self.ranges[position]
        options: Any = {"read_dictionary": list(coded), "pre_buffer": False}
        try:
            with (
                self.folder.parquet(self.entry.file) as source,
                pq.ParquetFile(source, **options) as file,
            ):
                if file.metadata.num_rows != total:
                    raise ArtefactError(f"{name} has not as many labels as rows; capture again.")
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                cuts = np.cumsum([0, *sizes])
                first = int(np.searchsorted(cuts, rows.start, side="right")) - 1
                last = int(np.searchsorted(cuts, rows.stop, side="left"))
                start = rows.start - int(cuts[first])
                yield file, list(range(first, last)), range(start, start + len(rows))
        except (pa.ArrowException, OSError, KeyError, BufferError, TypeError) as error:
            raise ArtefactError(f"{name} cannot be read ({error}); capture again.") from error
        finally:
            pa.default_memory_pool().release_unused()  # Arrow keeps what decoding took


def as_indices(numbers: Ints) -> pa.Array:
    """Row numbers for Arrow (`pyarrow.array` would import pandas where there is one)."""
    import pyarrow as pa

    plain = np.ascontiguousarray(numbers, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(plain), [None, pa.py_buffer(plain)])


def as_codes(indices: Any, null: int) -> Ints:
    """Indices of a dictionary as NumPy has them, with a number for null."""
    valid, data = indices.buffers()
    start, stop = indices.offset, indices.offset + len(indices)
    codes = np.frombuffer(data, np.int32)[start:stop]
    if valid is None:
        return codes
    flags = np.unpackbits(np.frombuffer(valid, np.uint8), count=stop, bitorder="little")
    return np.where(flags[start:], codes, np.int32(null))


def as_mask(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array:
    """Truth values for Arrow."""
    import pyarrow as pa

    bits = np.packbits(flags, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(bits)])


def table_bytes(table: pa.Table) -> bytes:
    """A label table as a Parquet file; the same table gives the same bytes."""
    import pyarrow.parquet as pq

    labels = [name for name in table.column_names if name != STORED]
    options: dict[str, Any] = {
        "use_dictionary": labels,
        # Row numbers are random: they do not compress, and are packed in as few bits as they need.
        "compression": {**dict.fromkeys(labels, "zstd"), STORED: "none"},
        "column_encoding": {STORED: "DELTA_BINARY_PACKED"},
    }
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=_GROUP_ROWS, **options)
    return sink.getvalue()


def position_rows(table: pa.Table) -> dict[str, int]:
    """Rows of each position, in the order of the table."""
    return {name: len(rows) for name, rows in LabelTable(table).ranges.items()}
