"""What operators do to hidden states: pure functions of tensors, all in one affine form.

Sums are formed in float32 and rounded to the model's number format once. Adding minus zero is exact
for every number (``x + -0.0 == x``, also for -0.0), so rows and tokens that are not steered come
out bit for bit as they went in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.steering.operators.operator import Operator

NOTHING = -0.0
"""The identity of addition. Plus zero is not: it turns -0.0 into 0.0."""


def quiet(vector: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Zeros of a vector as `NOTHING`, so that adding them changes no bit."""
    return torch.where(vector == 0, NOTHING, vector)


def add(
    hidden: Float[Tensor, "batch pos d"], vector: Float[Tensor, "batch _ d"]
) -> Float[Tensor, "batch pos d"]:
    """``h + v``.

    Args:
        hidden: Any float format.
        vector: Float32, per row or per token; `NOTHING` where nothing is to change.
    """
    return (hidden.float() + vector).to(hidden.dtype)


def dual_basis(directions: Float[Tensor, "... k d"]) -> Float[Tensor, "... k d"]:
    """Vectors ``w`` in the span of ``v`` with ``<w_i, v_j> = 1`` if i = j, else 0.

    Directions that depend on each other (six centred ones always do) get the least-squares answer;
    zero rows stay zero.
    """
    pseudo = torch.linalg.pinv(directions.double(), rtol=1e-5)
    return pseudo.transpose(-1, -2).to(directions.dtype)


def unit(vectors: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Vectors of norm 1; zero vectors stay zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny), 0.0)


@dataclass(frozen=True, eq=False)
class Projections:
    """What becomes of projections, per row: ``p = <h, direction>`` becomes ``scale * p + shift``.

    Attributes:
        directions: Unit vectors, or what low-rank maps read; zero rows do nothing.
        dual: Of `dual_basis`, or what the maps write.
        scale: What remains of each projection.
        shift: What is added to each.
    """

    directions: Float[Tensor, "row k d"]
    dual: Float[Tensor, "row k d"]
    scale: Float[Tensor, "row k"]
    shift: Float[Tensor, "row k"]

    def of(self, rows: Int[Tensor, " batch"]) -> Projections:
        """Those of the rows of a batch."""
        return Projections(*(getattr(self, part.name)[rows] for part in fields(self)))

    def to(self, device: torch.device | str) -> Projections:
        """The same on another device."""
        return Projections(*(getattr(self, part.name).to(device) for part in fields(self)))


def move(
    hidden: Float[Tensor, "batch pos d"],
    on: Bool[Tensor, "batch pos"],
    vector: Float[Tensor, "batch _ d"] | None = None,
    projections: Projections | None = None,
    *,
    keeps_norm: bool = False,
) -> Float[Tensor, "batch pos d"]:
    """``h + vector + ((scale - 1) * p + shift) @ dual``, then perhaps as long as ``h`` was.

    With one direction and no vector that is ``h + (p' - p) v``, the smallest change of ``h`` that
    makes its projection ``p'``.

    Args:
        hidden: Any float format.
        on: Tokens to change; the others stay bit for bit.
        vector: Float32, per row or per token.
        projections: One row per row of the batch.
        keeps_norm: Whether the norm stays.
    """
    plain = hidden.float()
    moved = plain if vector is None else plain + vector
    if projections is not None:
        found = torch.einsum("bpd,bkd->bpk", plain, projections.directions)
        change = (projections.scale[:, None] - 1) * found + projections.shift[:, None]
        moved = moved + torch.einsum("bpk,bkd->bpd", change, projections.dual)
    if keeps_norm:
        norms = moved.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        moved = moved * (plain.norm(dim=-1, keepdim=True) / norms)
    return torch.where(on[..., None], moved.to(hidden.dtype), hidden)


def turn(
    hidden: Float[Tensor, "batch pos d"],
    on: Bool[Tensor, "batch pos"],
    vector: Float[Tensor, "batch _ d"],
) -> Float[Tensor, "batch pos d"]:
    """Turn hidden states towards a vector and keep their norm.

    Args:
        hidden: Any float format.
        on: Tokens to change; the others stay bit for bit.
        vector: Float32, per row or per token: where to, its norm the angle in quarter turns. It is
            reached at most, never passed; along it, or away from it, there is no plane to turn in.
    """
    plain = hidden.float()
    length = plain.norm(dim=-1, keepdim=True)
    now, goal = unit(plain), unit(vector)
    along = (now * goal).sum(-1, keepdim=True)
    side = goal - along * now
    width = side.norm(dim=-1, keepdim=True)  # the sine of the angle between the two
    asked = vector.norm(dim=-1, keepdim=True) * (math.pi / 2)
    angle = torch.minimum(asked, torch.atan2(width, along))
    moved = length * (angle.cos() * now + angle.sin() * unit(side))
    flat = (width <= 1e-6) | (length == 0)
    return torch.where(on[..., None] & ~flat, moved.to(hidden.dtype), hidden)


@dataclass(frozen=True, eq=False)
class Affine:
    """All that one operator does at one place, per row of a table. Rows that do not act do nothing.

    Attributes:
        vector: What is added; None if the operator does not add.
        projections: What becomes of projections; None if the operator leaves them alone.
        keeps_norm: Whether the norm stays.
        acts: Rows that change anything.
        turned: Where rows are turned to, see `turn`; None if the operator does not turn.
    """

    vector: Float[Tensor, "row d"] | None
    projections: Projections | None
    keeps_norm: bool
    acts: Bool[Tensor, " row"]
    turned: Float[Tensor, "row d"] | None = None

    @classmethod
    def of(
        cls,
        operator: Operator,
        doses: Mapping[int, tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]],
        rows: int,
    ) -> Affine:
        """Stack what requests do.

        Args:
            operator: Of all of them.
            doses: Row to the doses of its emotions at this place and their strengths.
            rows: Of the table.
        """
        acts = torch.zeros(rows, dtype=torch.bool)
        vector = projections = None
        if operator.turns:
            turned = _summed(doses, rows)
            return cls(None, None, False, (turned != 0).any(-1), turned)
        if operator.adds:
            vector = _summed(doses, rows)
            acts |= (vector != 0).any(-1)
            if operator.projects is None and not operator.keeps_norm:
                vector = quiet(vector)
        if operator.projects is not None:
            projections = _projections(operator, doses, rows)
            acts |= (projections.directions != 0).any(-1).any(-1)
        return cls(vector, projections, operator.keeps_norm, acts)

    def apply(
        self,
        hidden: Float[Tensor, "batch pos d"],
        rows: Int[Tensor, " batch"],
        on: Bool[Tensor, "batch pos"] | None,
    ) -> Float[Tensor, "batch pos d"]:
        """Steer hidden states.

        Args:
            hidden: What the model computed here.
            rows: Row of the table of each row of the batch.
            on: Which tokens to steer; None for all of them.
        """
        vector = None if self.vector is None else self.vector[rows][:, None]
        if vector is not None and self.projections is None and not self.keeps_norm:
            return add(
                hidden, vector if on is None else torch.where(on[..., None], vector, NOTHING)
            )
        acts = self.acts[rows][:, None].expand(hidden.shape[:2])
        acting = acts if on is None else on & acts
        if self.turned is not None:
            return turn(hidden, acting, self.turned[rows][:, None])
        return move(
            hidden,
            acting,
            vector,
            None if self.projections is None else self.projections.of(rows),
            keeps_norm=self.keeps_norm,
        )

    def to(self, device: torch.device | str) -> Affine:
        """The same on another device."""
        return replace(
            self,
            vector=None if self.vector is None else self.vector.to(device),
            projections=None if self.projections is None else self.projections.to(device),
            acts=self.acts.to(device),
            turned=None if self.turned is None else self.turned.to(device),
        )


def _summed(
    doses: Mapping[int, tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]], rows: int
) -> Float[Tensor, "row d"]:
    """The doses of each request added up; zero for rows without one."""
    width = next(iter(doses.values()))[0].shape[-1]
    total = torch.zeros(rows, width)
    for row, (found, _) in doses.items():
        total[row] = found.sum(0)
    return total


def _projections(
    operator: Operator,
    doses: Mapping[int, tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]],
    rows: int,
) -> Projections:
    assert operator.projects is not None
    parts: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for row, (found, strengths) in doses.items():
        norms, sign = found.norm(dim=-1), strengths.sign()
        here = norms > 0
        change, shift = operator.projects(strengths, norms * sign)
        # The dose carries the strength's sign; the direction must not.
        parts[row] = (unit(found) * sign[:, None])[here], 1 + change[here], shift[here]
    most = max(len(scale) for _, scale, _ in parts.values())
    width = next(iter(parts.values()))[0].shape[-1]
    directions, dual = torch.zeros(rows, most, width), torch.zeros(rows, most, width)
    scale, shift = torch.ones(rows, most), torch.zeros(rows, most)
    for row, (found, remains, added) in parts.items():
        k = len(remains)
        directions[row, :k], dual[row, :k] = found, dual_basis(found)
        scale[row, :k], shift[row, :k] = remains, added
    return Projections(directions, dual, scale, shift)
