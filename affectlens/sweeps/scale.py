"""Several models on one question, by size: how well each reads it at best, and at which depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectlens.core.statistics import LEVEL, resampled, times_drawn
from affectlens.probes.fitting import EMBEDDINGS
from affectlens.sweeps.results import PAIR_DRAWS, Cell, Row

_QUESTION = ("corpus", "target", "probe", "position", "kind")


def scale_rows(cells: Sequence[Cell]) -> list[Row]:
    """A line per model for each question that several models were asked, the smallest first.

    ``value`` is the first score at the site that cross-validation chose, ``depth`` where that lies;
    ``peak_low`` and ``peak_high`` say how sure that is: between them lies the best site of 95 % of
    bootstrap draws of the held-out groups. ``embeddings`` is the score before the first block.
    """
    found: list[Row] = []
    for question in dict.fromkeys(tuple(cell.name[k] for k in _QUESTION) for cell in cells):
        asked = [cell for cell in cells if tuple(cell.name[k] for k in _QUESTION) == question]
        if len({cell.model for cell in asked}) > 1:
            found += [_row(cell) for cell in sorted(asked, key=lambda cell: cell.parameters)]
    return found


def _row(cell: Cell) -> Row:
    rows = [row for row in cell.rows() if row["score"] == cell.measure]
    best = rows[cell.best]
    low, high = peak_depths(cell, [row["depth"] for row in rows])
    before = [row["value"] for row in rows if row["site"] == EMBEDDINGS.hook_name]
    return {
        **cell.name,
        "parameters": cell.parameters,
        "blocks": cell.n_layers,
        "site": best["site"],
        "depth": best["depth"],
        "peak_low": low,
        "peak_high": high,
        "measure": cell.measure,
        "value": best["value"],
        "low": best["low"],
        "high": best["high"],
        "embeddings": before[0] if before else float("nan"),
        "always_the_same": cell.chance,
    }


def peak_depths(cell: Cell, depth: Sequence[float]) -> tuple[float, float]:
    """Depths between which the best site of bootstrap draws of held-out groups lies.

    Of equally good sites the first counts; the embeddings are none.
    """
    held = cell.sweep.held
    index, count = held.numbered()
    places = [i for i, site in enumerate(cell.sweep.sites) if site != EMBEDDINGS] or [0]
    good: np.ndarray[Any, Any] = held.good()[places].double().numpy()
    means = resampled(good, index, times_drawn(count, PAIR_DRAWS, 0))
    deepest = np.array(depth)[places][means.argmax(0)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(deepest, (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(high)
