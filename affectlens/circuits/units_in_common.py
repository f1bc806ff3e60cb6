"""Two circuits of one model beside each other: common units, with chance, and ranks of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from affectlens.circuits.attribution.scores import spearman
from affectlens.circuits.circuit import Circuit
from affectlens.circuits.overlap import jaccard, overlap
from affectlens.circuits.units import KINDS
from affectlens.core.display import Displayed
from affectlens.core.errors import DataError, MismatchError
from affectlens.core.statistics import holm


@dataclass(frozen=True)
class InCommon:
    """Of one emotion and kind of unit.

    Attributes:
        emotion: Whose units.
        kind: ``"neurons"`` or ``"heads"``.
        first, second: How many each circuit has.
        both: How many are in both.
        jaccard: Those in both, of those in either; NaN if neither has any.
        expected: Its mean if both drew their units at random, as many as they have in every layer.
        p: Chance of so many in common, one-sided, by Holm over emotions and kinds.
        spearman: Rank correlation of the scores of all units; NaN if one circuit scores none.
        others: Mean Jaccard index with the second circuit's units for the other emotions.
    """

    emotion: str
    kind: str
    first: int
    second: int
    both: int
    jaccard: float
    expected: float
    p: float
    spearman: float
    others: float


@dataclass(frozen=True, repr=False)
class UnitsInCommon(Displayed):
    """Two circuits compared, a row per emotion and kind of unit."""

    rows: tuple[InCommon, ...]

    @classmethod
    def of(cls, first: Circuit, second: Circuit) -> UnitsInCommon:
        """Compare two circuits of one model.

        Raises:
            MismatchError: If they are of different models.
            DataError: If they share no emotion.
        """
        emotions = _shared_emotions(first, second)
        rows = [_row(first, second, emotion, kind) for kind in KINDS for emotion in emotions]
        p = holm([row.p for row in rows])
        pairs = zip(rows, p, strict=True)
        return cls(tuple(replace(row, p=float(one)) for row, one in pairs))

    def brief(self) -> dict[str, object]:
        """Of each kind the mean Jaccard index, beside chance."""
        told = dict[str, object]()
        for kind in KINDS:
            found = [row for row in self.rows if row.kind == kind and row.jaccard == row.jaccard]
            if found:
                seen, chance = (
                    float(np.mean([getattr(row, name) for row in found]))
                    for name in ("jaccard", "expected")
                )
                told[kind] = f"{seen:.3f} (chance {chance:.3f})"
        return told

    def table_rows(self) -> Sequence[dict[str, Any]]:
        """A row per kind and emotion."""
        return [asdict(row) for row in self.rows]


def _shared_emotions(first: Circuit, second: Circuit) -> list[str]:
    if first.provenance.model != second.provenance.model:
        raise MismatchError(
            f"The circuits are of different models ({first.provenance.model_name}, "
            f"{second.provenance.model_name}); `affectlens compare` sets two models side by side."
        )
    emotions = [e for e in first.emotions if e in second.emotions]
    if not emotions:
        raise DataError(
            f"The circuits share no emotion: one has {', '.join(first.emotions)}, the other "
            f"{', '.join(second.emotions)}."
        )
    return emotions


def _row(first: Circuit, second: Circuit, emotion: str, kind: str) -> InCommon:
    sizes = first.sizes[:, KINDS.index(kind)].tolist()
    mine, theirs = (_places(circuit, emotion, kind) for circuit in (first, second))
    table = overlap({"first": mine, "second": theirs}, sizes=sizes)
    others = [
        jaccard(mine, _places(second, other, kind)) for other in second.emotions if other != emotion
    ]
    ranked = spearman(_scores(first, emotion, kind), _scores(second, emotion, kind))
    return InCommon(
        emotion=emotion,
        kind=kind,
        first=len(mine),
        second=len(theirs),
        both=len(mine & theirs),
        jaccard=jaccard(mine, theirs),
        expected=float(table.expected[0, 1]) if mine | theirs else np.nan,
        p=float(table.p_value[0, 1]),
        spearman=ranked[0] if ranked else np.nan,
        others=float(np.mean(others)) if others else np.nan,
    )


def _places(circuit: Circuit, emotion: str, kind: str) -> set[tuple[int, int]]:
    return {(unit.layer, unit.index) for unit in circuit.units(emotion, kind)}


def _scores(circuit: Circuit, emotion: str, kind: str) -> Tensor:
    scores = circuit.neuron_scores if kind == "neurons" else circuit.head_scores
    return scores[circuit.emotions.index(emotion)]
