"""What an accelerator needs to steer a batch: stacked vectors, one row per distinct request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.places import WritePoint, in_order
from affectlens.steering.classifier import GRADIENT, Steps, step_weights, stepping
from affectlens.steering.doses import doses_at
from affectlens.steering.gates import Gate, GateTable, gate_tables
from affectlens.steering.low_rank import LOW_RANK, map_dose, mapped
from affectlens.steering.operators import OPERATORS
from affectlens.steering.operators.affine import Affine
from affectlens.steering.schedules import Schedule
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.steering.pack import SteeringPack


@dataclass(frozen=True, eq=False)
class SiteTable:
    """All that happens at one place of one layer. Row 0 and rows that do not act here do nothing.

    Attributes:
        operators: Operator, `LOW_RANK` or `GRADIENT` to what its rows do. A row has one of them,
            so their order is all one.
    """

    operators: Mapping[str, Affine | Steps]

    def apply(
        self,
        hidden: Float[Tensor, "batch pos d_model"],
        rows: Int[Tensor, " batch"],
        on: Bool[Tensor, "batch pos"] | None,
        shares: Float[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Steer hidden states.

        Args:
            hidden: What the model computed here.
            rows: Row of the table of each row of the batch.
            on: Which tokens to steer; None for all of them.
            shares: How far each token goes from what it is to what it would become; None: all the
                way.
        """
        plain = moved = hidden if shares is None else hidden.float()  # rounded once, at the end
        for affine in self.operators.values():
            moved = affine.apply(moved, rows, on)
        if shares is None:
            return moved
        share = shares[..., None]
        partly = plain + share * (moved - plain)
        # All the way and not at all are bit for bit what they are without a schedule.
        return torch.where(
            share == 0, hidden, torch.where(share == 1, moved, partly).to(hidden.dtype)
        )

    def to(self, device: torch.device | str) -> SiteTable:
        """The same on another device."""
        return SiteTable({name: affine.to(device) for name, affine in self.operators.items()})


@dataclass(frozen=True, eq=False)
class SteeringTable:
    """What a list of requests does at every steered place.

    Attributes:
        sites: In the order of a forward pass. Places where no request does anything are absent.
        rows: For each request its row of the tables; 0 for those that change nothing.
        positions: For each row of the tables, which tokens it steers.
        schedules: Rows whose steering changes over the reply, and how.
        gates: Conditions of the rows, by the probe that decides them; each probe reads before all
            places that its rows steer.
    """

    sites: Mapping[WritePoint, SiteTable]
    rows: tuple[int, ...]
    positions: tuple[str, ...]
    gates: tuple[GateTable, ...] = ()
    schedules: Mapping[int, Schedule] = field(default_factory=dict[int, Schedule])

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
    rows = len(distinct) + 1
    acting: dict[WritePoint, dict[str, Affine | Steps]] = {}
    for name in pack.vectors:
        mode, _, point = name.partition(".")
        asked = {place[spec]: spec for spec in distinct if spec.mode == mode}
        for index, layer in enumerate(pack.layers[name] if asked else ()):
            found = _at(pack, name, index, asked, rows)
            if found:
                acting.setdefault(WritePoint(layer, point), {}).update(found)
    sites = {where: SiteTable(found) for where, found in acting.items()}
    return SteeringTable(
        {where: sites[where] for where in in_order(sites)},
        tuple(place.get(spec, 0) for spec in specs),
        ("generated", *(str(spec.positions) for spec in distinct)),
        _gates(pack, distinct),
        {
            row: spec.schedule
            for row, spec in enumerate(distinct, start=1)
            if isinstance(spec.schedule, Schedule)
        },
    )


def _gates(pack: SteeringPack, specs: Sequence[SteeringSpec]) -> tuple[GateTable, ...]:
    if pack.deciders is None:
        return ()
    gates: list[Gate | None] = [None, *(cast("Gate | None", spec.gate) for spec in specs)]
    deciders = [-1, *(pack.decider(spec) if spec.gate else -1 for spec in specs)]
    return gate_tables(pack.deciders, gates, deciders)


def _at(
    pack: SteeringPack, name: str, index: int, asked: Mapping[int, SteeringSpec], rows: int
) -> dict[str, Affine | Steps]:
    """What requests of one mode do at one of its places, by operator."""
    if name in pack.low_rank:
        found = {row: map_dose(pack, spec, name, index) for row, spec in asked.items()}
        maps = {row: dose for row, dose in found.items() if dose is not None}
        return {LOW_RANK: mapped(maps, rows)} if maps else {}
    if name.partition(".")[0] == GRADIENT:
        weighed = {row: step_weights(pack, spec, name, index) for row, spec in asked.items()}
        steps = {row: weights for row, weights in weighed.items() if weights is not None}
        return {GRADIENT: stepping(pack, index, steps, rows)} if steps else {}
    doses: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for row, spec in asked.items():
        vectors = doses_at(pack, spec, name.partition(".")[2], index)
        if bool((vectors != 0).any()):
            strengths = torch.tensor(list(spec.weights.values()), dtype=torch.float32)
            doses.setdefault(spec.operator, {})[row] = vectors, strengths
    return {operator: Affine.of(OPERATORS[operator], one, rows) for operator, one in doses.items()}
