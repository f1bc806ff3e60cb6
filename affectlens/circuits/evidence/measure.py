"""Margins of a task under many conditions, item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from affectlens.circuits.evidence.conditions import Conditions, Masks, margins_of
from affectlens.circuits.evidence.items import Item

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def margins_under(
    conditions: Conditions,
    items: Sequence[Item],
    contexts: Sequence[int | None],
    masks: Masks,
    *,
    wanted: Bool[Bools, "item condition"] | None = None,
    advance: Callable[[int], None] = lambda _n: None,
) -> Float[Floats, "condition item emotion"]:
    """Margins of every emotion in one context of each item, its centre not taken away.

    Args:
        conditions: What runs them.
        items: Of a task.
        contexts: Which emotion's context of each item is read; None passes over the item.
        masks: The units of each condition.
        wanted: Conditions that an item is run under; default: all.
        advance: Told how many conditions of an item are done.

    Returns:
        NaN where an item has no such context, no such margin, or was not wanted.
    """
    count = len(next(iter(masks.values())))
    found = np.full((count, len(items), len(items[0].known)), np.nan)
    for i, (item, context) in enumerate(zip(items, contexts, strict=True)):
        rows = np.arange(count) if wanted is None else np.flatnonzero(wanted[i])
        if context is None or not item.known[context] or not len(rows):
            advance(len(rows))
            continue
        chosen = {kind: mask[torch.from_numpy(rows)] for kind, mask in masks.items()}
        parts = [conditions.log_probs(i, question, context, chosen) for question in item.questions]
        found[rows, i] = margins_of(parts, item)
        advance(len(rows))
    return found


def other_contexts(items: Sequence[Item], emotion: int) -> list[int | None]:
    """Of each item a context in another tone, each tone in its turn; None if it has no other."""
    found = list[int | None]()
    for i, item in enumerate(items):
        others = [c for c, known in enumerate(item.known) if known and c != emotion]
        found.append(others[(i + emotion) % len(others)] if others else None)
    return found
