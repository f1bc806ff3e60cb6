"""What a request means as a few numbers per steered place.

At every place all requests move hidden states within the span of the pack's vectors there, so a
request is a handful of coefficients instead of vectors of its own: with ``V`` one natural dose per
emotion, ``h + (b + (h V^T) A) V``. Adding needs ``b`` alone; projecting out and clamping also need
``A``. So a server can hold thousands of requests in little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.gates import Place
from affectlens.steering.pack_checks import POINTS, place_order

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True, eq=False)
class Coefficients:
    """One request at every place.

    Attributes:
        shift: ``b``.
        scale: ``A``; None if the operator adds.
        keeps_norm: Whether the norm of the hidden state is kept.
    """

    shift: Float[Tensor, "place emotion"]
    scale: Float[Tensor, "place emotion emotion"] | None
    keeps_norm: bool


def places_of(pack: SteeringPack) -> tuple[Place, ...]:
    """Where a pack can write, in the order a forward pass reaches it."""
    places = {
        (layer, name.partition(".")[2]) for name, layers in pack.layers.items() for layer in layers
    }
    return tuple(sorted(places, key=place_order))


def vectors_at(pack: SteeringPack, places: Sequence[Place]) -> Float[Tensor, "place emotion d"]:
    """One natural dose per emotion at each place; zero where the pack does not write."""
    found = torch.zeros(len(places), len(pack.emotions), pack.d_model)
    index = {place: i for i, place in enumerate(places)}
    for name, layers in pack.layers.items():
        for i, layer in enumerate(layers):
            here = index.get((layer, name.partition(".")[2]))
            if here is not None:  # else it is another worker's
                found[here] = pack.vectors[name][:, i]
    return found


def coefficients(
    pack: SteeringPack,
    spec: SteeringSpec,
    places: Sequence[Place],
    vectors: Float[Tensor, "place emotion d"],
) -> Coefficients:
    """What a request of `SteeringPack.resolve` does at every place.

    Args:
        pack: The pack.
        spec: The request.
        places: Where the server can write.
        vectors: Of `vectors_at`.
    """
    strengths = torch.zeros(len(pack.emotions), dtype=torch.float64)
    for emotion, value in spec.weights.items():
        strengths[pack.emotions.index(emotion)] = value
    norms = vectors.double().norm(dim=-1)
    acts = (norms > 0) & (strengths != 0) & _written(pack, spec, places)[:, None]
    safe = torch.where(acts, norms, 1.0)
    doses = _in_natural_doses(pack, spec, strengths, places, safe)
    if spec.operator in ("add", "add_keep_norm"):
        shift = torch.where(acts, doses, 0.0)
        return Coefficients(shift.float(), None, spec.operator == "add_keep_norm")
    directions = torch.where(acts[..., None], vectors.double() / safe[..., None], 0.0)
    # The dual basis in terms of the directions themselves; see `operators.dual_basis`.
    inverse = torch.linalg.pinv(directions, rtol=1e-5)
    weights = inverse.transpose(-1, -2) @ inverse
    if spec.operator == "project_out":
        change, target = -strengths.expand_as(safe), torch.zeros_like(safe)
    else:
        change, target = -torch.ones_like(safe), doses * safe
    per_dose = torch.where(acts, 1 / safe, 0.0)
    scale = (change * per_dose)[..., None] * weights * per_dose[:, None, :]
    target = torch.where(acts, target, 0.0)
    shift = torch.einsum("pi,pij->pj", target, weights) * per_dose
    return Coefficients(shift.float(), scale.float(), False)


def _written(pack: SteeringPack, spec: SteeringSpec, places: Sequence[Place]) -> Tensor:
    """Places that the request's mode writes to."""
    points = POINTS[str(spec.mode)]
    return torch.tensor(
        [
            point in points and layer in pack.layers.get(f"{spec.mode}.{point}", ())
            for layer, point in places
        ]
    )


def _in_natural_doses(
    pack: SteeringPack,
    spec: SteeringSpec,
    strengths: Float[Tensor, " emotion"],
    places: Sequence[Place],
    norms: Float[Tensor, "place emotion"],
) -> Float[Tensor, "place emotion"]:
    match spec.unit:
        case "recommended":
            chosen = pack.recommended[str(spec.mode)]
            strengths = strengths * torch.tensor([float(chosen[e]) for e in pack.emotions]).double()
            return strengths.expand_as(norms)
        case "rms":
            if pack.rms is None:
                raise DataError("This pack does not hold the residual's RMS; use unit=natural.")
            rms = torch.stack([pack.rms[layer] for layer, _ in places]).double()
            return strengths * rms[:, None] / norms
        case "raw":
            return strengths / norms
        case _:
            return strengths.expand_as(norms)
