"""What a request means as a few numbers per steered place.

At every place all requests move hidden states within the span of the pack's vectors there, so a
request is a handful of coefficients instead of vectors of its own: with ``V`` one natural dose per
emotion, ``h + (b + (h V^T) A) V``. Operators that leave projections alone need ``b`` alone, the
others also ``A``. So a server can hold thousands of requests in little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.doses import doses_of
from affectlens.steering.low_rank import LOW_RANK
from affectlens.steering.operators import OPERATORS, served_operators
from affectlens.steering.spec import MODES

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True, eq=False)
class Coefficients:
    """One request at every place.

    Attributes:
        shift: ``b``.
        scale: ``A``; None if the operator leaves projections alone.
        keeps_norm: Whether the norm of the hidden state is kept.
    """

    shift: Float[Tensor, "place column"]
    scale: Float[Tensor, "place column column"] | None
    keeps_norm: bool


def coefficients(
    pack: SteeringPack,
    spec: SteeringSpec,
    places: Sequence[WritePoint],
    vectors: Float[Tensor, "place column d"],
) -> Coefficients:
    """What a request of `SteeringPack.resolve` does at every place.

    Args:
        pack: The pack.
        spec: The request.
        places: Where the server can write.
        vectors: Of `affectlens.steering.pack_places.vectors_at`.

    Raises:
        DataError: If the operator is none that tables of a server can hold.
    """
    require_served(spec)
    if spec.mode == LOW_RANK:
        return _of_maps(pack, spec, places, vectors.shape[1])
    found = _of_doses(pack, spec, places, vectors[:, : len(pack.emotions)])
    more = vectors.shape[1] - len(pack.emotions)  # columns of maps
    scale = None if found.scale is None else F.pad(found.scale, (0, more, 0, more))
    return Coefficients(F.pad(found.shift, (0, more)), scale, found.keeps_norm)


def require_served(spec: SteeringSpec) -> None:
    """Refuse a resolved request that the tables of a server cannot hold.

    Raises:
        DataError: Naming what it is, and what to do.
    """
    if (why := why_not_served(spec)) is not None:
        raise DataError(why)


def why_not_served(spec: SteeringSpec) -> str | None:
    """What of a request the tables of a server cannot hold, in a sentence; None if they can."""
    if not OPERATORS[spec.operator].served:
        able = ", ".join(served_operators())
        return (
            f"A server cannot do operator={spec.operator}; use one of {able}, or steer the model "
            "in this process (pack.steer)."
        )
    if spec.mode == GRADIENT:
        return (
            f"A server cannot do mode={GRADIENT}, whose steps need a classifier at every token; "
            "use another mode, or steer the model in this process (pack.steer)."
        )
    return None


def _of_maps(
    pack: SteeringPack, spec: SteeringSpec, places: Sequence[WritePoint], columns: int
) -> Coefficients:
    """Low-rank maps: ``b`` takes their constants, ``A`` leads from reads to writes.

    The order of columns is that of `affectlens.steering.pack_places.vectors_at`.
    """
    shift, scale = torch.zeros(len(places), columns), torch.zeros(len(places), columns, columns)
    strengths = doses_of(pack, spec, [], torch.float32).strengths.float()
    here, k, start = _written(pack, spec, places), len(pack.emotions), len(pack.emotions)
    for maps in pack.low_rank.values():
        for emotion, strength in zip(spec.weights, strengths, strict=True):
            e = pack.emotions.index(emotion)
            shift[here, start + e] = strength
            reads = start + k + e * maps.rank + torch.arange(maps.rank)
            for read in reads.tolist():
                scale[here, read, read + k * maps.rank] = strength
        start += k + 2 * k * maps.rank
    return Coefficients(shift, scale, keeps_norm=False)


def _of_doses(
    pack: SteeringPack,
    spec: SteeringSpec,
    places: Sequence[WritePoint],
    vectors: Float[Tensor, "place emotion d"],
) -> Coefficients:
    strengths = torch.zeros(len(pack.emotions), dtype=torch.float64)
    for emotion, value in spec.weights.items():
        strengths[pack.emotions.index(emotion)] = value
    norms = vectors.double().norm(dim=-1)
    acts = (norms > 0) & (strengths != 0) & _written(pack, spec, places)[:, None]
    safe = torch.where(acts, norms, 1.0)
    doses = _in_natural_doses(pack, spec, places, safe)
    operator = OPERATORS[spec.operator]
    added = torch.where(acts, doses, 0.0)
    if operator.projects is None:
        return Coefficients(added.float(), None, operator.keeps_norm)
    directions = torch.where(acts[..., None], vectors.double() / safe[..., None], 0.0)
    # The dual basis in terms of the directions themselves; see `operators.affine.dual_basis`.
    inverse = torch.linalg.pinv(directions, rtol=1e-5)
    weights = inverse.transpose(-1, -2) @ inverse
    change, target = operator.projects(strengths.expand_as(safe), doses * safe)
    per_dose = torch.where(acts, 1 / safe, 0.0)
    scale = (change * per_dose)[..., None] * weights * per_dose[:, None, :]
    target = torch.where(acts, target, 0.0)
    shift = torch.einsum("pi,pij->pj", target, weights) * per_dose
    if operator.adds:
        shift = shift + added
    return Coefficients(shift.float(), scale.float(), operator.keeps_norm)


def _written(pack: SteeringPack, spec: SteeringSpec, places: Sequence[WritePoint]) -> Tensor:
    """Places that the request's mode writes to."""
    points = MODES[str(spec.mode)]
    return torch.tensor(
        [
            at.point in points and at.layer in pack.layers.get(f"{spec.mode}.{at.point}", ())
            for at in places
        ]
    )


def _in_natural_doses(
    pack: SteeringPack,
    spec: SteeringSpec,
    places: Sequence[WritePoint],
    norms: Float[Tensor, "place emotion"],
) -> Float[Tensor, "place emotion"]:
    doses = doses_of(pack, spec, [place.layer for place in places], norms.dtype)
    strengths = torch.zeros(len(pack.emotions), dtype=norms.dtype)
    strengths[[pack.emotions.index(emotion) for emotion in spec.weights]] = doses.strengths
    if doses.lengths is None:
        return strengths.expand_as(norms)
    return strengths * doses.lengths[:, None] / norms
