"""What the strengths of a request mean in a pack: its unit, in one place for all back ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.intensity import CALIBRATED
from affectlens.steering.operators import OPERATORS
from affectlens.steering.operators.affine import unit

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec


CANCELLED = 0.01
"""Share of the length of its parts below which a mixture is nothing."""


@dataclass(frozen=True, eq=False)
class Doses:
    """How much of each vector a request means.

    Attributes:
        strengths: Signed, for each emotion of the request.
        lengths: How long a vector of strength 1 is at each place; None: as long as the pack's,
            which is one natural dose.
    """

    strengths: Float[Tensor, " emotion"]
    lengths: Float[Tensor, " place"] | None = None


def doses_of(
    pack: SteeringPack, spec: SteeringSpec, layers: Sequence[int], dtype: torch.dtype
) -> Doses:
    """The doses of a request.

    Args:
        pack: The pack.
        spec: Of `SteeringPack.resolve`.
        layers: Of the places that are asked about.
        dtype: To compute in.

    Raises:
        DataError: If the unit is ``rms`` and the pack does not know it.
    """
    strengths = torch.tensor(list(spec.weights.values()), dtype=dtype)
    if OPERATORS[spec.operator].share is not None:  # vectors only say where to
        return Doses(strengths, torch.ones(len(layers), dtype=dtype))
    match spec.unit:
        case "recommended":
            chosen = pack.recommended[str(spec.mode)]
            return Doses(strengths * torch.tensor([float(chosen[e]) for e in spec.weights]))
        case "rms":
            if pack.rms is None:
                raise DataError("This pack does not hold the residual's RMS; use unit=natural.")
            return Doses(strengths, pack.rms[list(layers)].to(dtype))
        case "raw":
            return Doses(strengths, torch.ones(len(layers), dtype=dtype))
        case name if name in CALIBRATED:
            known = pack.responses[name][str(spec.mode)]
            doses = [known[e].dose(effect) for e, effect in spec.weights.items()]
            return Doses(torch.tensor(doses, dtype=dtype))
        case _:
            return Doses(strengths)


def doses_at(
    pack: SteeringPack, spec: SteeringSpec, point: str, index: int
) -> Float[Tensor, "emotion d_model"]:
    """Strength times vector of each emotion of a request, at one place.

    Args:
        pack: The pack.
        spec: Of `SteeringPack.resolve`.
        point: One of `SteeringPack.points`.
        index: Which entry of the pack's ``layers``.
    """
    name = f"{spec.mode}.{point}"
    vectors = pack.vectors[name][[pack.emotions.index(e) for e in spec.weights], index]
    doses = doses_of(pack, spec, [pack.layers[name][index]], torch.float32)
    if doses.lengths is not None:
        vectors = unit(vectors) * doses.lengths
    return doses.strengths[:, None] * vectors


def cancels(pack: SteeringPack, spec: SteeringSpec) -> bool:
    """Whether the vectors of several emotions add up to next to nothing, as opposites do.

    Args:
        pack: The pack.
        spec: A resolved request.
    """
    operator = OPERATORS[spec.operator]
    if not (operator.adds or operator.turns) or spec.mode in _other_than_vectors(pack):
        return False
    whole = parts = 0.0
    for point in pack.points(str(spec.mode)):
        name = f"{spec.mode}.{point}"
        vectors = pack.vectors[name][[pack.emotions.index(e) for e in spec.weights]]
        doses = doses_of(pack, spec, pack.layers[name], torch.float32)
        if doses.lengths is not None:
            vectors = unit(vectors) * doses.lengths[:, None]
        each = doses.strengths.float()[:, None, None] * vectors
        whole += float(each.sum(0).square().sum())
        parts += float(each.square().sum())
    return parts > 0 and whole < CANCELLED**2 * parts


def _other_than_vectors(pack: SteeringPack) -> set[str]:
    """Modes that do more than add their vectors."""
    found = {name.partition(".")[0] for name in pack.low_rank}
    return found if pack.classifier is None else {*found, "gradient"}
