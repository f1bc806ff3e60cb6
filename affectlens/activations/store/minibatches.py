"""Mini-batches of a store that need not fit the memory.

Shuffled reading takes short runs of rows (blocks) in random order into a pool, shuffles the pool,
and deals it out in batches. So the disk is read in pieces large enough to be fast, and a batch
mixes rows of many places of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.label_table import Ints, as_codes, as_indices
from affectlens.activations.store.row_sources import Source
from affectlens.core.places import Site

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_SIZE = 1024
_POOL_BYTES = 16 << 20  # of rows in float32
_BLOCKS = 64  # in a pool
_MOST_VALUES = 1 << 16  # of a label, to be kept as Python objects


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        values: Their numbers.
        labels: The columns asked for.
        rows: Their numbers in the (selected) store, as `ActivationStore.tensor` takes them.
    """

    values: Float[Tensor, "n width"]
    labels: dict[str, list[Any]]
    rows: Ints


def batches(
    source: Source,
    site: Site,
    position: str,
    kept: Ints | None,
    labels: pa.Table | None,
    batch_size: int,
    shuffle: bool,
    seed: int,
) -> Iterator[Batch]:
    """Every row once; see `ActivationStore.batches`.

    Args:
        source: Where rows come from.
        site: Which site.
        position: Which position.
        kept: The rows of the position that are selected; None for all.
        labels: Columns to give along, of the rows kept.
        batch_size: Rows per batch.
        shuffle: Whether in random order.
        seed: Of that order.
    """
    pool = max(batch_size, _POOL_BYTES // (4 * source.widths[site]))
    if shuffle:
        dealt = _shuffled(source, site, position, kept, batch_size, pool, seed)
    else:
        dealt = _in_order(source, site, position, kept, batch_size, pool)
    named = {} if labels is None else {n: _lookup(labels.column(n)) for n in labels.column_names}
    del labels
    for values, rows in dealt:
        yield Batch(values, {name: of(rows) for name, of in named.items()}, rows)


def _lookup(column: pa.ChunkedArray) -> Callable[[Ints], list[Any]]:
    """Gives values by row number. In one piece: of pieces, Arrow would copy all for every batch."""
    import pyarrow as pa

    whole: Any = column.unify_dictionaries().combine_chunks()
    if pa.types.is_dictionary(whole.type) and len(whole.dictionary) <= _MOST_VALUES:
        values = [*whole.dictionary.to_pylist(), None]
        codes = as_codes(whole.indices, len(values) - 1)
        return lambda rows: [values[i] for i in codes[rows].tolist()]
    return lambda rows: whole.take(as_indices(rows)).to_pylist()


def _in_order(
    source: Source, site: Site, position: str, kept: Ints | None, batch_size: int, pool: int
) -> Iterator[tuple[Tensor, Ints]]:
    every = np.arange(len(source.order(position))) if kept is None else kept
    step = pool - pool % batch_size
    for start in range(0, len(every), step):
        values = source.read(site, position, every[start : start + step]).float()
        for first in range(0, len(values), batch_size):
            found = values[first : first + batch_size].clone()
            yield found, np.arange(start + first, start + first + len(found))


def _shuffled(
    source: Source,
    site: Site,
    position: str,
    kept: Ints | None,
    batch_size: int,
    pool: int,
    seed: int,
) -> Iterator[tuple[Tensor, Ints]]:
    generator = np.random.default_rng(seed)
    numbers = _numbers(source, position, kept)
    block = max(1, pool // _BLOCKS)
    pieces = source.pieces(position, block)
    if kept is not None:
        pieces = [(a, b) for a, b in pieces if (numbers[a:b] >= 0).any()]
    values = torch.empty(pool + block, source.widths[site])
    rows = np.empty(pool + block, np.int64)
    # The first batch is not to wait for a whole pool.
    filled, enough = 0, max(batch_size, pool // 4)
    for i, piece in enumerate(generator.permutation(len(pieces)).tolist(), 1):
        start, stop = pieces[piece]
        named = numbers[start:stop]
        wanted = named >= 0
        found = source.piece(site, position, start, stop)
        n = int(wanted.sum())
        values[filled : filled + n] = found if n == len(named) else found[torch.from_numpy(wanted)]
        rows[filled : filled + n] = named[wanted]
        filled += n
        if filled < enough and i < len(pieces):
            continue
        enough = min(pool, 2 * enough)
        order = generator.permutation(filled)
        last = filled if i == len(pieces) else filled - filled % batch_size
        for first in range(0, last, batch_size):
            dealt = order[first : min(first + batch_size, last)]
            yield values[torch.from_numpy(dealt)], rows[dealt]
        left = order[last:]
        values[: len(left)] = values[torch.from_numpy(left)]
        rows[: len(left)] = rows[left]
        filled = len(left)


def _numbers(source: Source, position: str, kept: Ints | None) -> np.ndarray[Any, Any]:
    """By stored row, its number among the rows kept; -1 if it is not."""
    order = source.order(position)
    chosen = order if kept is None else order[kept]
    numbers = np.full(len(order), -1, np.int32 if len(order) < 1 << 31 else np.int64)
    numbers[chosen] = np.arange(len(chosen), dtype=numbers.dtype)
    return numbers
