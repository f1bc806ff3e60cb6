"""Low-rank maps that travel in a pack: what they do to hidden states, and what they must be.

A map of an emotion at a place adds ``s (c + Wᵀ A h)``: ``A`` reads the hidden state by a few rows,
``W`` writes along as many, ``c`` is what is added whatever ``h`` is. ReFT's low-rank intervention
``h + Rᵀ (W' h + b − R h)`` (Wu et al., arXiv 2404.03592) is that with ``A = W' − R``, ``W = R`` and
``c = Rᵀ b``; at strength 1 it is the intervention itself. Maps of several emotions read the same
hidden state and add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.doses import doses_of
from affectlens.steering.operators.affine import Affine, Projections

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec

LOW_RANK = "low_rank"
"""The mode of packs that steers by maps."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """Maps of one point; what they add whatever the hidden state is, are the pack's vectors.

    Attributes:
        reads: ``A``, of hidden states as the model has them.
        writes: ``W``.
    """

    reads: Float[Tensor, "emotion layer rank d_model"]
    writes: Float[Tensor, "emotion layer rank d_model"]

    def __post_init__(self) -> None:
        for name in ("reads", "writes"):
            object.__setattr__(self, name, getattr(self, name).detach().float().cpu())

    @property
    def rank(self) -> int:
        """Rows of each map."""
        return self.reads.shape[2]

    @property
    def acts(self) -> Bool[Tensor, "emotion layer"]:
        """Where a map is not zero."""
        found = (x.flatten(2) != 0 for x in (self.reads, self.writes))
        one, other = (x.any(-1) for x in found)
        return one & other

    def check(self, name: str, emotions: int, layers: int, d_model: int) -> None:
        """Hold it against the pack it is in.

        Raises:
            DataError: Naming what does not fit.
        """
        rank = max(1, self.rank if self.reads.ndim == 4 else 1)
        for part, tensor in (("reads", self.reads), ("writes", self.writes)):
            wanted = (emotions, layers, rank, d_model)
            if tuple(tensor.shape) != wanted:
                raise DataError(
                    f"{name}.{part} has shape {list(tensor.shape)}, not {list(wanted)}."
                )
            if not bool(tensor.isfinite().all()):
                raise DataError(f"{name}.{part} holds NaN or infinity.")

    def where(self, keep: Bool[Tensor, "emotion layer"]) -> LowRank:
        """The same maps at some places, zero at the others."""
        return replace(self, reads=self.reads * keep[..., None, None])

    def banded(self, emotion: int, keep: Bool[Tensor, "band layer"]) -> LowRank:
        """The maps of one emotion at several bands of layers, each in place of an emotion."""
        stays = keep[..., None, None]
        return LowRank(self.reads[emotion] * stays, self.writes[emotion] * stays)


@dataclass(frozen=True, eq=False)
class MapDose:
    """What one request does at one place, strengths multiplied in.

    Attributes:
        constant: Added whatever the hidden state is.
        reads: Rows of all its emotions.
        writes: As many.
    """

    constant: Float[Tensor, " d_model"]
    reads: Float[Tensor, "k d_model"]
    writes: Float[Tensor, "k d_model"]


def map_dose(pack: SteeringPack, spec: SteeringSpec, name: str, index: int) -> MapDose | None:
    """What a request of `SteeringPack.resolve` does at one place; None if nothing.

    Args:
        pack: The pack.
        spec: The request.
        name: Of the maps, ``low_rank.<point>``.
        index: Which entry of the pack's ``layers``.
    """
    chosen = [pack.emotions.index(emotion) for emotion in spec.weights]
    maps, layer = pack.low_rank[name], pack.layers[name][index]
    constant = pack.vectors[name][chosen, index]
    if not bool((constant != 0).any() or maps.acts[chosen, index].any()):
        return None
    strengths = doses_of(pack, spec, [layer], torch.float32).strengths.float()
    writes = strengths[:, None, None] * maps.writes[chosen, index]
    return MapDose(
        (strengths[:, None] * constant).sum(0),
        maps.reads[chosen, index].flatten(0, 1),
        writes.flatten(0, 1),
    )


def mapped(doses: Mapping[int, MapDose], rows: int) -> Affine:
    """What requests do at one place, as `affectlens.steering.operators.affine.Affine` has it.

    Args:
        doses: Row of the table to what it does.
        rows: Of the table.
    """
    width = len(next(iter(doses.values())).constant)
    most = max(len(dose.reads) for dose in doses.values())
    vector, acts = torch.zeros(rows, width), torch.zeros(rows, dtype=torch.bool)
    reads, writes = torch.zeros(rows, most, width), torch.zeros(rows, most, width)
    for row, dose in doses.items():
        k = len(dose.reads)
        vector[row], acts[row] = dose.constant, True
        reads[row, :k], writes[row, :k] = dose.reads, dose.writes
    # A projection that is doubled is one that is added: (2 − 1) ⟨h, read⟩ along its write.
    scale, shift = torch.full((rows, most), 2.0), torch.zeros(rows, most)
    return Affine(vector, Projections(reads, writes, scale, shift), False, acts)
