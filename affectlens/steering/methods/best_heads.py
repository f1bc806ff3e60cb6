"""Inference-time intervention: the heads that probes read best are shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.places import Site
from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.units import require_heads, with_heads

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.steering.pack import SteeringPack

NAME = "best_heads"
PENALTY = 0.1
"""scikit-learn's C of the heads' probes."""


def fold(found: Material) -> SteeringPack:
    """As many heads per emotion as the circuit has, those whose probe hears it best."""
    from affectlens.steering.pack import SteeringPack

    circuit = found.circuit(refined=False)
    require_heads(circuit, NAME)
    scores, shift = head_shifts(found, circuit)
    heads: dict[str, list[tuple[int, int]]] = {}
    for e, emotion in enumerate(circuit.emotions):
        count = max(1, len(circuit.heads[emotion]))
        best = scores[e].flatten().argsort(descending=True, stable=True)[:count]
        heads[emotion] = [divmod(int(i), circuit.n_heads) for i in best]
    chosen = with_heads(circuit, heads, shift, how="iti")
    return SteeringPack.from_circuit(chosen, found.model)


def head_shifts(
    found: Material, circuit: Circuit
) -> tuple[Float[Tensor, "emotion layer head"], Float[Tensor, "emotion layer width"]]:
    """How well each head tells an emotion from the others, and what to add to it.

    Half of the groups fit a logistic probe per head, the other half score it (area under the ROC
    curve of the emotion's logit); what is added is ``σ θ`` of all of them: θ the direction between
    the mean of the emotion and the mean of the others, σ the standard deviation along it.

    Returns:
        Scores, minus infinity where there is no head; and shifts, zero there.
    """
    from affectlens.geometry.grouping import find_groups

    store, emotions = found.heads, circuit.emotions
    grouping = find_groups(store, emotions)
    y, held = grouping.emotion, grouping.group % 2 == 1
    wide, deep = circuit.n_heads, circuit.d_head
    scores = torch.full((len(emotions), circuit.n_layers, wide), -torch.inf)
    shift = torch.zeros(len(emotions), circuit.n_layers, wide, deep)
    for site in store.sites:
        if site.kind != "z":
            continue
        there = int(circuit.sizes[site.layer, 0])
        x = store.to_torch(site)[grouping.rows].float().unflatten(-1, (there, -1)).transpose(0, 1)
        scores[:, site.layer, :there] = heard_by(x, y, held, len(emotions))
        shift[:, site.layer, :there, : x.shape[-1]] = mass_mean(x, y, len(emotions))
    return scores, shift.flatten(-2)


def heard_by(
    x: Float[Tensor, "head n d"], y: Int[Tensor, " n"], held: Tensor, n_classes: int
) -> Float[Tensor, "emotion head"]:
    """Area under the ROC curve of each class's logit on held-out rows.

    Args:
        x: Outputs of every head.
        y: Class of each row.
        held: Rows that score; the others fit.
        n_classes: How many.
    """
    from affectlens.geometry.logistic import fit_logistic

    weight = (~held).float()[None]
    fit = fit_logistic(x, y, (PENALTY,), n_classes=n_classes, weight=weight)
    logits = fit.logits(x[:, held].float())[:, 0, 0]  # [head, row, class]
    return torch.stack([_area(logits[..., c], y[held] == c) for c in range(n_classes)])


def _area(score: Float[Tensor, "head n"], positive: Tensor) -> Float[Tensor, " head"]:
    """Share of pairs, one positive and one not, that are in order; ties count half."""
    ahead = score[:, positive][:, :, None] - score[:, ~positive][:, None]
    return ((ahead > 0).float() + 0.5 * (ahead == 0).float()).mean((1, 2))


def mass_mean(
    x: Float[Tensor, "head n d"], y: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, "emotion head d"]:
    """``σ θ``: the unit direction from the mean of the others to that of the class, as long as
    all rows deviate along it."""
    shifts: list[Tensor] = []
    for c in range(n_classes):
        theta = x[:, y == c].mean(1) - x[:, y != c].mean(1)
        theta = torch.nn.functional.normalize(theta, dim=-1)
        along = torch.einsum("hnd,hd->hn", x, theta)
        shifts.append(along.std(1, correction=0)[:, None] * theta)
    return torch.stack(shifts)


def sites_of(n_layers: int) -> list[Site]:
    """What a store of heads holds."""
    return [Site(layer, "z") for layer in range(n_layers)]


BEST_HEADS = Method(
    NAME,
    "Shift the heads whose probes hear the emotion best (ITI)",
    "z + s·σθ at the best heads, θ between means, σ along θ",
    "one standard deviation σ",
    "Li et al. 2023 (arXiv 2306.03341)",
    "one pass over the texts, a probe per head",
    "few heads are to be touched",
    fold,
    "circuit",
    strengths=(4.0, 8.0, 16.0),
)
