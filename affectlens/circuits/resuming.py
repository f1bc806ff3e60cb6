"""Rows of a text that were run once, and go on from any layer.

A change at a layer leaves earlier ones alone, so with what they gave once every change costs the
layers from its own on only. The model itself makes the call, with any batch, so masks, positions
and angles are its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.replay import beginning_at, watching

if TYPE_CHECKING:
    from affectlens.circuits.side_by_side import Runs
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class Recorded:
    """One copy of some rows, run as they are.

    Attributes:
        model: The model.
        runs: The rows.
        value: Their part of the margin.
        inputs: What each block was given.
        outputs: What each block gave, whatever else it gives beside the stream.
    """

    model: LanguageModel
    runs: Runs
    value: float
    inputs: Mapping[int, Float[Tensor, "row pos d_model"]]
    outputs: Mapping[int, Any]

    def before(self, layer: int, copies: int) -> AbstractContextManager[None]:
        """In this block ``runs(copies)`` begins at a layer."""
        stream = self.inputs[layer].repeat(copies, 1, 1)
        return beginning_at(self.model, layer, stream, self.outputs)

    def resumed(self, layer: int) -> Resumed:
        """The same rows, beginning at a layer."""
        return Resumed(self, layer)


@dataclass(frozen=True, eq=False)
class Resumed:
    """Rows that begin at a layer; see `affectlens.circuits.side_by_side.Runs`."""

    kept: Recorded
    layer: int

    @property
    def rows(self) -> int:
        """See `Runs.rows`."""
        return self.kept.runs.rows

    @property
    def tokens(self) -> int:
        """See `Runs.tokens`."""
        return self.kept.runs.tokens

    @property
    def most(self) -> int | None:
        """See `Runs.most`."""
        return self.kept.runs.most

    def __call__(self, copies: int = 1) -> Float[Tensor, " copy"]:
        """See `Runs.__call__`."""
        with self.kept.before(self.layer, copies):
            return self.kept.runs(copies)


@torch.no_grad()
def record(model: LanguageModel, runs: Runs) -> Recorded:
    """Run some rows once, and keep what a pass needs that goes on from a layer."""
    with watching(model, range(model.n_layers)) as seen:
        value = float(runs())
    return Recorded(model, runs, value, seen.inputs, seen.outputs)
