"""What a study of the probes is: lines of one table, whatever was asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core.display import Displayed
from affectlens.core.statistics import bootstrap_interval

Row = dict[str, Any]
Watch = Callable[[str, str], None]
"""Told what is at work on what."""
Floats = np.ndarray[Any, np.dtype[np.float64]]


def line(panel: str, series: str, x: float | str, measure: str, value: float, **more: Any) -> Row:
    """A line of a study's table.

    Args:
        panel: What it is about: a target, a system prompt, a dialogue.
        series: What was read or done; a control has a series of its own, or stands ``beside``.
        x: An offset, a turn, a class.
        measure: What ``value`` is.
        value: The figure.
        more: ``low``, ``high`` (95 % over groups), ``p``, ``beside`` (the figure of the control
            named in ``control``), ``rows`` and ``groups`` that it is of.
    """
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "beside": math.nan, "control": ""}
    what = {"panel": panel, "series": series, "x": x, "measure": measure, "value": float(value)}
    return {**what, **nothing, "rows": 0, "groups": 0, **more}


def mean_with_interval(
    values: Float[Floats, " n"], groups: Sequence[str], draws: int, seed: int
) -> Row:
    """``value``, ``low``, ``high``, ``rows`` and ``groups`` of a mean over rows."""
    low, high = bootstrap_interval(values, groups, draws=draws, random=seed)
    return {
        "value": float(np.mean(values)),
        "low": float(low),
        "high": float(high),
        "rows": len(values),
        "groups": len(set(groups)),
    }


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(Displayed):
    """What one study found.

    Attributes:
        study: Its name: ``persistence``, ``malleability`` or ``dialogue``.
        model, corpus: Names.
        rows: Lines made by `line`.
        facts: What the numbers depend on, name by name.
        tables: Further tables by name.
    """

    study: str
    model: str
    corpus: str
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict[str, Sequence[Row]])

    def brief(self) -> dict[str, object]:
        """Study, model, corpus, how many lines."""
        return {
            "study": self.study,
            "model": self.model,
            "corpus": self.corpus,
            "lines": len(self.rows),
        }

    def table_rows(self) -> list[Row]:
        """Every line."""
        return [dict(row) for row in self.rows]

    def where(self, **wanted: object) -> list[Row]:
        """Lines with these values, for example ``series="permuted labels"``."""
        return [row for row in self.rows if all(row[k] == v for k, v in wanted.items())]
