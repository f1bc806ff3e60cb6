"""What an accelerator needs to steer a batch: stacked vectors, one row per distinct request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.places import WritePoint, in_order
from affectlens.steering.doses import doses_at
from affectlens.steering.gates import Gate, GateTable, gate_tables
from affectlens.steering.operators import (
    NOTHING,
    add,
    add_keep_norm,
    dual_basis,
    move_projections,
    quiet,
    unit,
)
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.steering.pack import SteeringPack


@dataclass(frozen=True, eq=False)
class Projections:
    """What moves projections, per row of the table; see `operators.move_projections`."""

    directions: Float[Tensor, "row k d_model"]
    dual: Float[Tensor, "row k d_model"]
    scale: Float[Tensor, "row k"]
    shift: Float[Tensor, "row k"]


@dataclass(frozen=True, eq=False)
class SiteTable:
    """All that happens at one place of one layer. Row 0 and rows that do not act here do nothing.

    Attributes:
        add: Vectors to add; None if no row adds.
        turn: Vectors to add while keeping the norm.
        project: Projections to move.
    """

    add: Float[Tensor, "row d_model"] | None = None
    turn: Float[Tensor, "row d_model"] | None = None
    project: Projections | None = None

    def apply(
        self,
        hidden: Float[Tensor, "batch pos d_model"],
        rows: Int[Tensor, " batch"],
        on: Bool[Tensor, "batch pos"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Steer hidden states.

        Args:
            hidden: What the model computed here.
            rows: Row of the table of each row of the batch.
            on: Which tokens to steer; None for all of them.
        """
        if self.add is not None:
            vector = self.add[rows][:, None]
            if on is not None:
                vector = torch.where(on[..., None], vector, NOTHING)
            hidden = add(hidden, vector)
        if self.turn is None and self.project is None:
            return hidden
        if on is None:
            on = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        if self.turn is not None:
            vector = self.turn[rows][:, None]
            hidden = add_keep_norm(hidden, vector, on & (vector != 0).any(-1))
        if self.project is not None:
            some = self.project.directions[rows]
            acts = (some != 0).any(-1).any(-1)
            hidden = move_projections(
                hidden,
                some,
                self.project.dual[rows],
                self.project.scale[rows],
                self.project.shift[rows],
                on & acts[:, None],
            )
        return hidden

    def to(self, device: torch.device | str) -> SiteTable:
        """The same on another device."""
        moved = self.project and Projections(
            *(getattr(self.project, name).to(device) for name in Projections.__dataclass_fields__)
        )
        return SiteTable(
            None if self.add is None else self.add.to(device),
            None if self.turn is None else self.turn.to(device),
            moved,
        )


@dataclass(frozen=True, eq=False)
class SteeringTable:
    """What a list of requests does at every steered place.

    Attributes:
        sites: In the order of a forward pass. Places where no request does anything are absent.
        rows: For each request its row of the tables; 0 for those that change nothing.
        positions: For each row of the tables, which tokens it steers.
        gates: Conditions of the rows, by the probe that decides them; each probe reads before all
            places that its rows steer.
    """

    sites: Mapping[WritePoint, SiteTable]
    rows: tuple[int, ...]
    positions: tuple[str, ...]
    gates: tuple[GateTable, ...] = ()

    def to(self, device: torch.device | str) -> SteeringTable:
        """The same on another device."""
        return replace(
            self,
            sites={place: site.to(device) for place, site in self.sites.items()},
            gates=tuple(gates.to(device) for gates in self.gates),
        )


def build_table(pack: SteeringPack, specs: Sequence[SteeringSpec]) -> SteeringTable:
    """Stack what resolved specs do, on the CPU, in float32.

    Args:
        pack: The vectors.
        specs: Of `SteeringPack.resolve`.
    """
    distinct = list(dict.fromkeys(spec for spec in specs if spec))
    place = {spec: i + 1 for i, spec in enumerate(distinct)}
    shape = (len(distinct) + 1, pack.d_model)
    sums: dict[tuple[WritePoint, str], Tensor] = {}
    moves: dict[WritePoint, dict[int, _Moves]] = {}
    for row, spec in enumerate(distinct, start=1):
        for point in pack.points(str(spec.mode)):
            for i, layer in enumerate(pack.layers[f"{spec.mode}.{point}"]):
                found = doses_at(pack, spec, point, i)
                if not bool((found != 0).any()):
                    continue
                here = WritePoint(layer, point)
                if spec.operator in ("add", "add_keep_norm"):
                    total = sums.setdefault(
                        (here, spec.operator), torch.zeros(shape, dtype=torch.float32)
                    )
                    total[row] = found.sum(0)
                else:
                    moves.setdefault(here, {})[row] = _moves(spec, found)
    sites: dict[WritePoint, SiteTable] = {}
    for (where, operator), total in sums.items():
        field = "add" if operator == "add" else "turn"
        table = quiet(total) if field == "add" else total
        sites[where] = replace(sites.get(where, SiteTable()), **{field: table})
    for where, by_row in moves.items():
        sites[where] = replace(sites.get(where, SiteTable()), project=_stack(by_row, shape))
    return SteeringTable(
        {where: sites[where] for where in in_order(sites)},
        tuple(place.get(spec, 0) for spec in specs),
        ("generated", *(str(spec.positions) for spec in distinct)),
        _gates(pack, distinct),
    )


def _gates(pack: SteeringPack, specs: Sequence[SteeringSpec]) -> tuple[GateTable, ...]:
    if pack.deciders is None:
        return ()
    gates: list[Gate | None] = [None, *(cast("Gate | None", spec.gate) for spec in specs)]
    deciders = [-1, *(pack.decider(spec) if spec.gate else -1 for spec in specs)]
    return gate_tables(pack.deciders, gates, deciders)


@dataclass(frozen=True, eq=False)
class _Moves:
    directions: Float[Tensor, "k d_model"]
    scale: Float[Tensor, " k"]
    shift: Float[Tensor, " k"]


def _moves(spec: SteeringSpec, doses: Float[Tensor, "k d_model"]) -> _Moves:
    """Directions that are not zero here, and what becomes of the projections on them."""
    norms = doses.norm(dim=-1)
    strengths = torch.tensor(list(spec.weights.values()), dtype=torch.float32)
    here = norms > 0
    # The dose carries the strength's sign; the direction must not.
    directions = unit(doses) * strengths.sign()[:, None]
    if spec.operator == "project_out":
        scale, shift = 1 - strengths, torch.zeros_like(strengths)
    else:
        scale, shift = torch.zeros_like(strengths), norms * strengths.sign()
    return _Moves(directions[here], scale[here], shift[here])


def _stack(by_row: Mapping[int, _Moves], shape: tuple[int, int]) -> Projections:
    rows, width = shape
    most = max(len(found.scale) for found in by_row.values())
    directions, dual = torch.zeros(rows, most, width), torch.zeros(rows, most, width)
    scale, shift = torch.ones(rows, most), torch.zeros(rows, most)
    for row, found in by_row.items():
        k = len(found.scale)
        directions[row, :k], dual[row, :k] = found.directions, dual_basis(found.directions)
        scale[row, :k], shift[row, :k] = found.scale, found.shift
    return Projections(directions, dual, scale, shift)
