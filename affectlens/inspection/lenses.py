"""What a token's residual stream is read with, layer by layer: a pack's probes or its directions.

A probe gives probabilities, of all its classes. A direction gives the cosine of the stream and the
emotion's vector; the mean of the stream is part of that, so cosines compare tokens, layers, and a
steered run with an unsteered one, not one emotion with another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site
from affectlens.steering.gates import EMBEDDINGS, Readout, probabilities

if TYPE_CHECKING:
    from affectlens.geometry.directions import Directions
    from affectlens.steering.pack import SteeringPack

PROBES, DIRECTIONS = "probes", "directions"
_RESIDUAL = "residual.resid_post"


@dataclass(frozen=True, eq=False)
class Lens:
    """Linear readings of the residual stream after some blocks.

    Attributes:
        name: ``"probes"`` or ``"directions"``.
        columns: What each reading has a number for.
        layers: Blocks it reads after, ascending; `EMBEDDINGS` is before block 0.
        weights: Of raw activations.
        bias: Of probes; None for directions.
    """

    name: str
    columns: tuple[str, ...]
    layers: tuple[int, ...]
    weights: Float[Tensor, "layer column d_model"]
    bias: Float[Tensor, "layer column"] | None = None

    @property
    def measure(self) -> str:
        """What its numbers are."""
        return "cosine" if self.bias is None else "probability"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it reads, in the order of `layers`."""
        return tuple(
            Site(0, "resid_pre") if layer == EMBEDDINGS else Site(layer, "resid_post")
            for layer in self.layers
        )

    def read(
        self, index: int, hidden: Float[Tensor, "*pos d_model"]
    ) -> Float[Tensor, "*pos column"]:
        """Numbers of tokens at one of its layers, float32 on the CPU.

        Args:
            index: Which of `layers`.
            hidden: The stream there. Cosines with a vector that is zero are NaN.
        """
        stream, weights = hidden.float().cpu(), self.weights[index]
        if self.bias is not None:
            return probabilities(stream, weights, self.bias[index])
        return (stream @ weights.T) / (stream.norm(dim=-1, keepdim=True) * weights.norm(dim=-1))

    def vector(self, layer: int, column: str) -> Float[Tensor, " d_model"]:
        """One vector.

        Raises:
            DataError: If there is none, or it is zero.
        """
        if layer in self.layers and column in self.columns:
            found = self.weights[self.layers.index(layer), self.columns.index(column)]
            if bool(found.any()):
                return found
        raise DataError(
            f"There is no direction of {column} after block {layer}; those there are: "
            f"{', '.join(self.columns)} after blocks {', '.join(map(str, self.layers))}."
        )


def lenses_of(pack: SteeringPack, directions: Directions | None = None) -> tuple[Lens, ...]:
    """Everything a pack can be read with, probes first; none if it has neither.

    Args:
        pack: Its probes (those it reads by and those that decide gates), and the vectors of its
            residual mode.
        directions: Of all layers, in the place of the pack's few.
    """
    found = [_of_probes(pack), _of_directions(pack, directions)]
    return tuple(lens for lens in found if lens is not None)


def _of_probes(pack: SteeringPack) -> Lens | None:
    known: dict[int, tuple[Tensor, Tensor]] = {}
    readouts: list[Readout] = [one for one in (pack.readout, pack.gates) if one is not None]
    if not readouts:
        return None
    classes = readouts[0].classes  # those of all of them, as the pack has checked
    for one in readouts:
        for i, layer in enumerate(one.layers):
            known.setdefault(layer, (one.weights[i], one.bias[i]))
    layers = tuple(sorted(known))
    weights, bias = (torch.stack([known[layer][k] for layer in layers]) for k in (0, 1))
    return Lens(PROBES, classes, layers, weights, bias)


def _of_directions(pack: SteeringPack, directions: Directions | None) -> Lens | None:
    if directions is not None:
        at = [i for i, site in enumerate(directions.sites) if site.kind == "resid_post"]
        layers = tuple(directions.sites[i].layer for i in at)
        if layers and tuple(directions.emotions) == pack.emotions:
            weights = directions.centroid()[at].float().cpu()
            return Lens(DIRECTIONS, pack.emotions, layers, weights)
    if _RESIDUAL not in pack.vectors:
        return None
    weights = pack.vectors[_RESIDUAL].transpose(0, 1)
    return Lens(DIRECTIONS, pack.emotions, pack.layers[_RESIDUAL], weights)
