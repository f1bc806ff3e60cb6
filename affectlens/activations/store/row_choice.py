"""Which rows are meant: by number, or by the value of a label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from affectlens.activations.store.label_table import Ints
from affectlens.core.errors import DataError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Rows = slice | Sequence[int] | Ints


def row_numbers(rows: Rows, n: int) -> Ints:
    """Numbers from 0 of the rows asked for, of ``n`` in all; negative ones count from the end.

    Raises:
        DataError: If there are no such rows.
    """
    if isinstance(rows, slice):
        return np.arange(n)[rows].copy()  # torch takes no negative strides
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise DataError("Rows are asked for by a slice or a list of row numbers.")
    numbers = numbers.astype(np.int64)
    if len(numbers) and not (-n <= numbers.min() and numbers.max() < n):
        raise DataError(f"There are {n} rows, numbered from 0; row numbers beyond that do not fit.")
    return np.where(numbers < 0, numbers + n, numbers)


def is_one_of(
    name: str, column: pa.ChunkedArray, wanted: str | int | Collection[Any] | None
) -> Mask:
    """Which values of a column are among those wanted, ``[n]``.

    Raises:
        UnknownNameError: If one of those does not occur.
    """
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported

    names = [wanted] if wanted is None or isinstance(wanted, (str, int)) else list(wanted)
    column = column.unify_dictionaries()
    found = set(cast("list[Any]", compute.unique(column).to_pylist()))
    for missing in sorted(set(names).difference(found), key=str):
        raise unknown(name, missing, sorted({str(v) for v in found if v is not None}))
    values = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    chosen = compute.is_in(column, value_set=pa.array(names, values))
    return np.asarray(chosen.to_numpy(), dtype=bool)
