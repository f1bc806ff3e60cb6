"""Attribution patching: how far a margin would fall without each unit, from one backward pass.

The total effect of a unit on what the model does, later layers included, to first order; its direct
contribution to a direction (`contributions`) knows only what it writes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.tasks.base import Row, Task
from affectlens.core.places import WritePoint
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.hooking.hooks import writing

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.models.loading import LanguageModel

_POINTS = {"neurons": "down_proj_in", "heads": "o_proj_in"}


def attribution_patching(
    model: LanguageModel, task: Task, means: UnitMeans, emotions: Sequence[str]
) -> tuple[Float[Tensor, "emotion layer d_mlp"], Float[Tensor, "emotion layer n_heads"]]:
    """Expected fall of each emotion's margin if a unit's values were its mean at every token.

    ``Σ_t <x_t - μ, ∂m/∂x_t>`` with ``m`` the task's margin of the emotion in its own context,
    averaged over texts: the derivative of `affectlens.circuits.evidence.ablate` at the first step
    from ``x`` to ``μ``. Softmaxes and norms are curved, so single units come out well and large
    sets do not simply add up; `ablate` on other texts is the test.

    Args:
        model: The model; gradients have the precision of its weights.
        task: Texts to rank by; test on others.
        means: What would take the units' place.
        emotions: Of the task.

    Returns:
        In the task's unit; positive where the emotion's margin needs the unit.

    Raises:
        DataError: If the model is being steered, or an emotion has no text with its own
            continuation and another.

    Source: Nanda, "Attribution patching" (2023); Syed et al., arXiv 2310.10348.
    """
    refuse_listeners(model.hf, "Attribution")
    mu = {kind: means.mean(kind).mean(0).to(model.device) for kind in _POINTS}
    found = {
        kind: torch.zeros(len(emotions), model.n_layers, values.shape[-1])
        for kind, values in mu.items()
    }
    plan = [(e, rows) for e, emotion in enumerate(emotions) for rows in task.texts(emotion) if rows]
    counts = torch.bincount(torch.tensor([e for e, _ in plan]), minlength=len(emotions))
    with progress("attribution", len(plan)) as advance:
        for e, rows in plan:
            for kind, effect in _effects(model, task, emotions[e], rows, mu).items():
                found[kind][e] += effect / counts[e]
            advance(1)
    heads = torch.zeros(len(emotions), model.n_layers, max(p.n_heads for p in model.anatomy.blocks))
    for layer, part in enumerate(model.anatomy.blocks):
        if part.n_heads:
            own = found["heads"][:, layer, : part.n_heads * part.d_head]
            heads[:, layer, : part.n_heads] = own.unflatten(-1, (part.n_heads, -1)).sum(-1)
    return found["neurons"], heads


def _effects(
    model: LanguageModel,
    task: Task,
    emotion: str,
    rows: Sequence[tuple[float, Row]],
    mu: dict[str, Tensor],
) -> dict[str, Float[Tensor, "layer width"]]:
    """``Σ_t <x_t - μ, ∂m/∂x_t>`` per channel, for one text."""
    lengths = [len(prompt) + len(told) for _, (prompt, told) in rows]
    together = model.padding.upto(max(lengths)).right or len(set(lengths)) == 1
    total: dict[str, Tensor] = {}
    for batch in [rows] if together else [[row] for row in rows]:
        values: dict[tuple[str, int], Tensor] = {}
        nothing: dict[tuple[str, int], Tensor] = {}

        def added(key: tuple[str, int], value: Tensor) -> Tensor:
            values[key] = value.detach()  # noqa: B023
            nothing[key] = torch.zeros_like(value, requires_grad=True)  # noqa: B023
            return value + nothing[key]  # noqa: B023

        places = {
            WritePoint(layer, point): lambda value, key=(kind, layer): added(key, value)
            for kind, point in _POINTS.items()
            for layer, part in enumerate(model.anatomy.blocks)
            if (part.n_heads if kind == "heads" else part.d_mlp)  # no experts: they have no scores
        }
        with torch.enable_grad(), writing(model.anatomy, places):
            margin = task.objective(model, emotion, batch)
            # Units that the margin does not read (later than a projection's site) have slope 0.
            gradients = torch.autograd.grad(
                margin, list(nothing.values()), allow_unused=True, materialize_grads=True
            )
        slopes = dict(zip(nothing, gradients, strict=True))
        for kind, mean in mu.items():
            effect = torch.zeros_like(mean)  # a layer without such units has none
            for (of, layer), slope in slopes.items():
                if of == kind:
                    own = slope.shape[-1]  # narrower where layers differ
                    way = values[kind, layer].float() - mean[layer, :own]
                    effect[layer, :own] = (way * slope.float()).sum((0, 1))
            total[kind] = total.get(kind, torch.zeros_like(mean).cpu()) + effect.cpu()
    return total
