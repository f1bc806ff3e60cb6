"""Copying the rows of a store, all or a selection, into a folder of their own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from affectlens.activations.store.folder import Folder
from affectlens.activations.store.label_table import Ints
from affectlens.activations.store.manifest import STORED
from affectlens.activations.store.reading import StoredRows
from affectlens.activations.store.shards import ShardWriter, StoreSpec, bytes_per_row, shard_size
from affectlens.activations.store.writer import opened_for_writing


def copy_rows(store: StoredRows, target: Folder, shard_bytes: int | None = None) -> None:
    """Write the rows that a store keeps as another store; see `ActivationStore.save`.

    Rows stay in the order in which they lie, so that both stores are read and written in runs. A
    selection is named in the provenance: it is not the store it was taken from.
    """
    orders = {position: store.storage_order(position) for position in store.positions}
    spec = _spec(store, orders, shard_bytes)
    table = store.rows.append_column(
        STORED, [np.concatenate([np.argsort(order) for order in orders.values()])]
    )
    with opened_for_writing(target, spec, table, resume=False, force=True) as session:
        with ShardWriter(target, spec, torch.device("cpu")) as writer:
            for shard, ranges in enumerate(spec.shards):
                writer.begin(shard)
                for position, (start, stop) in ranges.items():
                    rows = orders[position][start:stop]
                    for site in store.sites if len(rows) else ():
                        writer.write(site, position, start, store.tensor(site, position, rows))
                writer.end()
        session.finish()


def _spec(store: StoredRows, orders: dict[str, Ints], shard_bytes: int | None) -> StoreSpec:
    widths = {site: store.width(site) for site in store.sites}
    row_bytes = bytes_per_row(widths, store.dtype)
    shard_bytes = shard_size(shard_bytes, row_bytes)
    n_shards = max(1, -(-len(store) * row_bytes // shard_bytes))
    cuts = {
        position: [len(order) * i // n_shards for i in range(n_shards + 1)]
        for position, order in orders.items()
    }
    ranges = {position: list(pairwise(found)) for position, found in cuts.items()}
    provenance = store.provenance
    if store.fingerprint != provenance.fingerprint:
        provenance = replace(provenance, inputs={**provenance.inputs, "rows": store.fingerprint})
    return StoreSpec(
        provenance=provenance,
        dtype=store.dtype,
        widths=widths,
        shards=tuple({p: ranges[p][i] for p in orders} for i in range(n_shards)),
        layout={"shard_bytes": shard_bytes},
        facts=store.facts,
        record_of=lambda position, row: str(store.column("id", position)[orders[position][row]]),
    )
