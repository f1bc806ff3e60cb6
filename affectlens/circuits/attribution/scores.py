"""Scores of all units by one method, and how far methods agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError

KINDS: tuple[str, ...] = ("heads", "neurons", "sublayers")


@dataclass(frozen=True, eq=False, repr=False)
class UnitScores(Displayed):
    """What every unit is worth to every emotion by one method; NaN where it was not measured.

    Attributes:
        method: For example ``"attribution patching"``.
        emotions: Order of the first axis.
        heads, neurons: Of all units; zero or NaN beyond what a layer has.
        sublayers: Of attention and MLP as a whole, on the last axis.
        provenance: What made them.
    """

    method: str
    emotions: tuple[str, ...]
    heads: Float[Tensor, "emotion layer n_heads"]
    neurons: Float[Tensor, "emotion layer d_mlp"]
    sublayers: Float[Tensor, "emotion layer 2"]
    provenance: Provenance

    def of(self, kind: str) -> Float[Tensor, "emotion layer unit"]:
        """Those of one kind."""
        return {"heads": self.heads, "neurons": self.neurons, "sublayers": self.sublayers}[kind]

    def brief(self) -> dict[str, object]:
        """Method, emotions, layers, model."""
        return {
            "method": self.method,
            "emotions": len(self.emotions),
            "layers": self.heads.shape[1],
            "model": self.provenance.model_name,
        }

    def table_rows(self, neurons: int = 50) -> list[dict[str, Any]]:
        """A row for every head and sublayer, and for the strongest neurons, of every emotion."""
        rows = list[dict[str, Any]]()
        for e, emotion in enumerate(self.emotions):
            for kind in KINDS:
                values = self.of(kind)[e]
                order = values.nan_to_num().abs().flatten().argsort(descending=True, stable=True)
                shown = order[:neurons] if kind == "neurons" else order
                for layer, index in (divmod(int(i), values.shape[1]) for i in shown):
                    score = float(values[layer, index])
                    if score == score:  # measured
                        rows.append(
                            {
                                "emotion": emotion,
                                "kind": kind,
                                "layer": layer,
                                "index": index,
                                "score": score,
                            }
                        )
        return rows

    def save(self, path: str | Path) -> None:
        """Write them to one file (safetensors with a JSON header).

        Raises:
            ArtefactError: If the file cannot be written.
        """
        tensors = with_gaps({kind: self.of(kind) for kind in KINDS})
        facts = {"method": self.method, "emotions": list(self.emotions)}
        write_tensors(Path(path), tensors, self.provenance, facts)

    @classmethod
    def load(cls, path: str | Path) -> UnitScores:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "unit_scores")
        try:
            tensors = without_gaps(file.tensors)
            return cls(
                method=str(file.extra["method"]),
                emotions=tuple(file.extra["emotions"]),
                **{kind: tensors[kind] for kind in KINDS},
                provenance=file.provenance,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error


@dataclass(frozen=True)
class Correlation:
    """How alike two methods rank the units of one kind for one emotion.

    Attributes:
        emotion, kind: Of what.
        one, other: The methods.
        spearman: Rank correlation over the units that both have.
        units: How many those are.
    """

    emotion: str
    kind: str
    one: str
    other: str
    spearman: float
    units: int


@dataclass(frozen=True, repr=False)
class Agreement(Displayed):
    """Rank correlations between methods, of every pair, kind and emotion."""

    rows: tuple[Correlation, ...]

    @classmethod
    def of(cls, scores: Sequence[UnitScores]) -> Agreement:
        """Compare methods pair by pair.

        Raises:
            DataError: If there are fewer than two, or they are of other emotions or shapes.
        """
        if len(scores) < 2:
            raise DataError("Methods are compared in pairs; give the scores of at least two.")
        first = scores[0]
        rows = list[Correlation]()
        for other in scores:
            same = all(other.of(kind).shape == first.of(kind).shape for kind in KINDS)
            if other.emotions != first.emotions or not same:
                raise DataError(
                    f"The scores by {other.method} are of other emotions or another model than "
                    f"those by {first.method}; measure both alike."
                )
        for i, one in enumerate(scores):
            for other in scores[i + 1 :]:
                for kind in KINDS:
                    for e, emotion in enumerate(first.emotions):
                        found = spearman(one.of(kind)[e], other.of(kind)[e])
                        if found is not None:
                            rows.append(
                                Correlation(emotion, kind, one.method, other.method, *found)
                            )
        return cls(tuple(rows))

    def mean(self, one: str, other: str, kind: str) -> float:
        """Mean over emotions of the correlation of two methods; NaN if they were not compared."""
        names = {one, other}
        found = [r.spearman for r in self.rows if {r.one, r.other} == names and r.kind == kind]
        return float(np.mean(found)) if found else float("nan")

    def table_rows(self) -> list[dict[str, Any]]:
        """A row per emotion, kind and pair of methods."""
        return [vars(row).copy() for row in self.rows]

    def brief(self) -> dict[str, object]:
        """Pairs, and the mean over emotions of each."""
        pairs = dict.fromkeys((r.one, r.other, r.kind) for r in self.rows)
        return {f"{a} / {b}, {kind}": round(self.mean(a, b, kind), 3) for a, b, kind in pairs}


def spearman(one: Tensor, other: Tensor) -> tuple[float, int] | None:
    """Rank correlation over the units that both scores have, and how many those are.

    None if they are fewer than three, or all alike. A unit that neither method gives anything, as
    one that a layer lacks, does not count.
    """
    from scipy.stats import spearmanr

    a, b = one.flatten().double().numpy(), other.flatten().double().numpy()
    both = np.isfinite(a) & np.isfinite(b) & ~((a == 0) & (b == 0))
    if both.sum() < 3 or len(set(a[both])) < 2 or len(set(b[both])) < 2:
        return None
    found: Any = spearmanr(a[both], b[both])
    return float(found.statistic), int(both.sum())


def head_sums(
    channels: Float[Tensor, "*k width"], n_heads: int, d_head: int
) -> Float[Tensor, "*k n_heads"]:
    """Channels of heads side by side, summed head by head."""
    return channels[..., : n_heads * d_head].unflatten(-1, (n_heads, d_head)).sum(-1)


def with_gaps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For a file, which holds no NaN: zeros in their place, and where values are."""
    there = {f"{name}.there": ~tensor.isnan() for name, tensor in tensors.items()}
    return {name: tensor.nan_to_num(nan=0.0) for name, tensor in tensors.items()} | there


def without_gaps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `with_gaps`.

    Raises:
        KeyError: If one of a pair is missing.
    """
    names = [name for name in tensors if not name.endswith(".there")]
    return {name: tensors[name].masked_fill(~tensors[f"{name}.there"], torch.nan) for name in names}
