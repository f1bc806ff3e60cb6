"""The label table of a plan: what each row is, in corpus order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.activations.store.manifest import row_table

if TYPE_CHECKING:
    import pyarrow as pa

    from affectlens.activations.forward.plan import CapturePlan

_OF_RECORD = ("id", "emotion", "valence", "group", "scenario", "theme", "split", "role")


def plan_table(plan: CapturePlan) -> pa.Table:
    """The labels of every row and where it lies (``stored``), position by position.

    The strings of a record are made once and repeated by index, however many rows it has.
    """
    import pyarrow as pa

    texts, positions = plan.texts, plan.positions
    owner = np.concatenate(
        [np.repeat(np.arange(len(texts)), plan.counts[p.name]) for p in positions]
    )
    columns: dict[str, Any] = {
        name: pa.array([getattr(record, name) for record in texts.records], pa.string()).take(owner)
        for name in _OF_RECORD
    }
    names = pa.array([position.name for position in positions])
    rows = [plan.rows[position.name] for position in positions]
    columns["position"] = names.take(np.repeat(np.arange(len(positions)), rows))
    first, width = zip(*(plan.tokens(position) for position in positions), strict=True)
    columns["token"], columns["tokens"] = np.concatenate(first), np.concatenate(width)
    columns["stored"] = np.concatenate([plan.stored(position.name) for position in positions])
    return row_table(columns)
