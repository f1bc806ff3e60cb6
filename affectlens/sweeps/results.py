"""What a sweep over models, corpora and targets found, as plain tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from affectlens.core.display import Displayed
from affectlens.core.places import Site
from affectlens.core.statistics import Difference, holm
from affectlens.probes.number_sweep import NumberSweep
from affectlens.probes.sweep import Sweep

Row = dict[str, Any]
PAIR_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Cell:
    """One sweep, and what it was made of.

    Attributes:
        model, corpus, target, probe, position, kind: Names; ``kind`` is that of its sites.
        sweep: The probes and what they say of held-out rows.
        n_layers: Blocks of the model.
        parameters: Numbers in its weights, each counted once.
        file: Where the probes lie, relative to the folder of the whole.
    """

    model: str
    corpus: str
    target: str
    probe: str
    position: str
    kind: str
    sweep: Sweep | NumberSweep
    n_layers: int
    parameters: int
    file: str

    @property
    def name(self) -> dict[str, str]:
        """What tells it from other cells."""
        names = ("model", "corpus", "target", "probe", "position", "kind")
        return {name: getattr(self, name) for name in names}

    @property
    def measure(self) -> str:
        """The score that comes first: accuracy, or Pearson's r."""
        return "accuracy" if isinstance(self.sweep, Sweep) else "pearson"

    @property
    def best(self) -> int:
        """Index of the site that cross-validation chose."""
        return self.sweep.sites.index(self.sweep.best)

    @property
    def chance(self) -> float:
        """Accuracy of always saying the most frequent class; 0 of numbers."""
        return self.sweep.majority if isinstance(self.sweep, Sweep) else 0.0

    @property
    def cv(self) -> np.ndarray[Any, Any]:
        """Best score on the folds, of each site."""
        found = self.sweep.cv_accuracy if isinstance(self.sweep, Sweep) else self.sweep.cv_r2
        return found.amax(1).numpy()

    def rows(self) -> Iterator[Row]:
        """Every score of every site, with its interval."""
        held = self.sweep.held
        for i, site in enumerate(self.sweep.sites):
            for row in self.sweep.scores.rows(i):
                yield {
                    **self.name,
                    "site": site.hook_name,
                    "layer": site.layer,
                    "depth": _depth(site, self.n_layers),
                    **row,
                    "cv": float(self.cv[i]),
                    "penalty": self.sweep.penalty[i],
                    "chosen": i == self.best,
                    "held_out": self.sweep.held_out,
                    "rows_fitted": self.sweep.counts["fit"],
                    "rows_held_out": len(held),
                    "groups_held_out": len(set(held.groups)),
                }

    def against(self, i: int, other: Cell, j: int) -> Difference:
        """Paired difference of two sites' probes on the same held-out rows."""
        mine, theirs = self.sweep.held, other.sweep.held
        assert mine is not None and theirs is not None
        return mine.compare(i, theirs, j, draws=PAIR_DRAWS)


def _depth(site: Site, n_layers: int) -> float:
    """0 for the embeddings, 1 behind the last block."""
    return 0.0 if site.kind == "resid_pre" else (site.layer + 1) / n_layers


@dataclass(frozen=True, eq=False, repr=False)
class SweepResults(Displayed):
    """Everything that was found.

    Attributes:
        cells: One sweep each.
        comparisons: Differences in pairs, Holm-corrected within each question.
        controls: What stands beside the probes.
        transfer: Probes of one corpus on another.
        curves: Scores by share of the groups fitted on.
    """

    cells: Sequence[Cell]
    comparisons: Sequence[Row] = ()
    controls: Sequence[Row] = ()
    transfer: Sequence[Row] = ()
    curves: Sequence[Row] = ()

    def brief(self) -> dict[str, object]:
        """How many of what."""
        return {
            "models": len({cell.model for cell in self.cells}),
            "corpora": len({cell.corpus for cell in self.cells}),
            "targets": len({cell.target for cell in self.cells}),
            "sweeps": len(self.cells),
            "controls": len({row["control"] for row in self.controls}),
        }

    def table_rows(self) -> list[Row]:
        """Every score of every site of every sweep."""
        return [row for cell in self.cells for row in cell.rows()]

    def best_rows(self) -> list[Row]:
        """One row per sweep: the site that cross-validation chose, and its first score."""
        found: list[Row] = []
        for cell in self.cells:
            wanted = (r for r in cell.rows() if r["chosen"] and r["score"] == cell.measure)
            found.append(next(wanted))
        return found


def compare_cells(cells: Sequence[Cell]) -> list[Row]:
    """Layers against the chosen one; models and probes against each other, each at its chosen site.

    Each is the paired difference on the same held-out rows (of accuracy, or of squared error with
    its sign turned), with p corrected by Holm within one question.
    """
    found: list[Row] = []
    for cell in cells:
        others = [i for i in range(len(cell.sweep.sites)) if i != cell.best]
        found += _corrected(
            [
                _pair("layers", cell, cell.best, cell, i, cell.sweep.sites[i].hook_name)
                for i in others
            ]
        )
    for question in ("model", "probe"):
        pairs: dict[tuple[str, ...], list[Row]] = {}
        for a, b in combinations(cells, 2):
            rest = {**a.name, question: ""}
            if rest == {**b.name, question: ""}:
                row = _pair(f"{question}s", a, a.best, b, b.best, getattr(b, question))
                pairs.setdefault(tuple(rest.values()), []).append(row)
        for rows in pairs.values():
            found += _corrected(rows)
    return found


def _pair(question: str, a: Cell, i: int, b: Cell, j: int, other: str) -> Row:
    difference = a.against(i, b, j)
    return {
        "question": question,
        **a.name,
        "site": a.sweep.sites[i].hook_name,
        "other": other,
        "other_site": b.sweep.sites[j].hook_name,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
        "groups": difference.clusters,
    }


def _corrected(rows: list[Row]) -> list[Row]:
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]
