"""How far two portraits agree: probes, directions and circuits, each beside its control."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from affectlens.circuits.overlap import jaccard, overlap
from affectlens.circuits.units import KINDS
from affectlens.core.statistics import Difference, paired_difference
from affectlens.geometry.displacements import make_estimation
from affectlens.geometry.grouping import bootstraps
from affectlens.probes.sweep import Sweep

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.circuits.circuit import Circuit
    from affectlens.comparison.portrait import Portrait
    from affectlens.core.places import Site


@dataclass(frozen=True)
class ProbeAgreement:
    """How well a layer tells the emotions apart in either model.

    Attributes:
        site: Hook name.
        layer: Its layer; -1 for the embeddings.
        base, tuned: Accuracy on held-out rows.
        base_low, base_high, tuned_low, tuned_high: 95 % intervals over scenarios.
        difference: Tuned minus base on the same rows; None without a test split.
        transfer: Accuracy of the base's probe on the tuned model's held-out rows; likewise.
    """

    site: str
    layer: int
    base: float
    base_low: float
    base_high: float
    tuned: float
    tuned_low: float
    tuned_high: float
    difference: Difference | None
    transfer: float | None


@dataclass(frozen=True)
class DirectionAgreement:
    """How far the direction of an emotion is the same after a block.

    Attributes:
        layer, emotion: Which.
        cosine: Between the two models' directions.
        low, high: 95 % interval over groups of texts, drawn alike for both.
        others: The control: mean cosine with the tuned model's directions of the other emotions.
        split_half_base, split_half_tuned: Cosine between halves of the texts within a model.
        dose: Natural dose of the tuned model, over that of the base.
    """

    layer: int
    emotion: str
    cosine: float
    low: float
    high: float
    others: float
    split_half_base: float
    split_half_tuned: float
    dose: float


@dataclass(frozen=True)
class CircuitAgreement:
    """How many units of an emotion's two circuits are the same.

    Attributes:
        kind: ``"heads"`` or ``"neurons"``.
        layer: Which; None for all together.
        emotion: Which.
        base, tuned: Units of either.
        jaccard: Units in both, of those in either; None if neither has any here.
        expected: Its mean if both drew as many at random within every sublayer.
        p: Chance of at least so many in common.
        others: Second control: mean Jaccard index with the tuned model's units of the other
            emotions.
    """

    kind: str
    layer: int | None
    emotion: str
    base: int
    tuned: int
    jaccard: float | None
    expected: float | None
    p: float
    others: float | None


def probe_agreement(base: Portrait, tuned: Portrait, draws: int, seed: int) -> list[ProbeAgreement]:
    """Accuracies of both models' probes, site by site, and their paired difference."""
    found: list[ProbeAgreement] = []
    for site in base.probes.sites:
        one, two = (_accuracy(side.probes, site) for side in (base, tuned))
        paired, transfer = None, None
        if base.probes.held_out == "test split":
            first, scenarios = _right(base.probes, base.rows, site)
            second, _ = _right(tuned.probes, tuned.rows, site)
            carried, _ = _right(base.probes, tuned.rows, site)
            paired = paired_difference(
                second.double().numpy(), first.double().numpy(), scenarios, draws=draws, random=seed
            )
            transfer = float(carried.float().mean())
        layer = -1 if site.kind == "resid_pre" else site.layer
        found.append(ProbeAgreement(site.hook_name, layer, *one, *two, paired, transfer))
    return found


def _accuracy(probes: Sweep, site: Site) -> tuple[float, float, float]:
    i = probes.sites.index(site)
    low, high = probes.ci[i].tolist()
    return float(probes.accuracy[i]), low, high


def _right(
    probes: Sweep, rows: ActivationStore, site: Site
) -> tuple[Bool[Tensor, " n"], list[str]]:
    """Which rows of the test split a probe gets right, and their scenarios."""
    position = rows.default_position(None)
    names = (rows.column(name, position) for name in ("emotion", "split", "scenario"))
    table = list(zip(*names, strict=True))
    held = [i for i, (label, split, _) in enumerate(table) if split == "test"
            and label in probes.classes]  # fmt: skip
    said = probes.logits(rows.to_torch(site, position)[held], site).argmax(1)
    truth = torch.tensor([probes.classes.index(table[i][0]) for i in held])
    return said == truth, [str(table[i][2]) for i in held]


def direction_agreement(
    base: Portrait, tuned: Portrait, draws: int, seed: int
) -> list[DirectionAgreement]:
    """Cosines between both models' directions, layer by layer."""
    emotions, sites = base.directions.emotions, base.layers
    plans = [
        make_estimation(side.fitting, emotions, side.directions.estimator, None, sites)
        for side in (base, tuned)
    ]
    n_groups = len(plans[0].grouping.keys)
    weight = torch.cat([torch.ones(1, n_groups), bootstraps(n_groups, draws, seed)])
    others = ~torch.eye(len(emotions), dtype=torch.bool)
    halves = [_halves(side) for side in (base, tuned)]
    found: list[DirectionAgreement] = []
    for layer, site in enumerate(sites):
        moved = [normalize(plan.displacements(site, weight, False), dim=-1) for plan in plans]
        same = (moved[0] * moved[1]).sum(-1)  # [draw, emotion]
        crossed = moved[0][0] @ moved[1][0].T
        ends = np.quantile(same[1:].double().numpy(), (0.025, 0.975), axis=0)
        for e, emotion in enumerate(emotions):
            dose = tuned.directions.norm(emotion, site) / base.directions.norm(emotion, site)
            found.append(
                DirectionAgreement(
                    layer=layer,
                    emotion=emotion,
                    cosine=float(same[0, e]),
                    low=float(ends[0, e]),
                    high=float(ends[1, e]),
                    others=float(crossed[e, others[e]].mean()),
                    split_half_base=float(halves[0][layer, e]),
                    split_half_tuned=float(halves[1][layer, e]),
                    dose=dose,
                )
            )
    return found


def _halves(side: Portrait) -> Float[Tensor, "layer emotion"]:
    halves = side.directions.split_half
    assert halves is not None
    return torch.stack([halves[side.directions.site_index(site)] for site in side.layers])


def circuit_agreement(base: Circuit, tuned: Circuit) -> list[CircuitAgreement]:
    """Overlap of both models' circuits: of all layers together, then layer by layer."""
    found: list[CircuitAgreement] = []
    for k, kind in enumerate(KINDS):
        sizes = base.sizes[:, k].tolist()
        for layer in (None, *range(len(sizes))):
            found += _overlaps(base, tuned, kind, layer, sizes)
    return found


def _overlaps(
    base: Circuit, tuned: Circuit, kind: str, layer: int | None, sizes: list[int]
) -> Iterator[CircuitAgreement]:
    """Of every emotion, in one layer or in all."""
    for emotion in base.emotions:
        first, second = (_there(x, emotion, kind, layer) for x in (base, tuned))
        table = overlap({"base": first, "tuned": second}, sizes=sizes)
        others = [
            jaccard(first, _there(tuned, other, kind, layer))
            for other in base.emotions
            if other != emotion
        ]
        compared = [value for value in others if value == value]
        there = bool(first or second)
        yield CircuitAgreement(
            kind=kind,
            layer=layer,
            emotion=emotion,
            base=len(first),
            tuned=len(second),
            jaccard=float(table.jaccard[0, 1]) if there else None,
            expected=float(table.expected[0, 1]) if there else None,
            p=float(table.p_value[0, 1]),
            others=sum(compared) / len(compared) if compared else None,
        )


def _there(circuit: Circuit, emotion: str, kind: str, layer: int | None) -> set[tuple[int, int]]:
    units = circuit.units(emotion, kind)
    return {(u.layer, u.index) for u in units if layer is None or u.layer == layer}
