"""The highest scores of the whole model, by one method or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.gradients import GradientSettings, gradient_scores
from affectlens.circuits.attribution.learned_masks import MaskSettings, learned_masks
from affectlens.circuits.attribution.scores import UnitScores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.total_effect import total_effects
from affectlens.circuits.ranking.base import Search, Strategy
from affectlens.circuits.ranking.reranked import reranked

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit

CANDIDATES = 4
"""Neurons whose exact effect is measured, as a multiple of those that are chosen."""


def _direct(search: Search) -> Circuit:
    circuit = search.circuit
    return _taken(search, circuit.neuron_scores, circuit.head_scores, "direct contribution")


def _patching(search: Search) -> Circuit:
    return _by_slopes(search, GradientSettings())


def _eap_ig(search: Search) -> Circuit:
    return _by_slopes(search, GradientSettings("activations"))


def _total_effect(search: Search) -> Circuit:
    """Exact for all heads, and for the neurons that attribution patching ranks highest."""
    emotions = search.circuit.emotions
    heads, neurons = (
        torch.zeros_like(search.circuit.head_scores),
        _slopes(search, GradientSettings()).neurons,
    )
    if search.heads:
        heads = total_effects(search.model, *search.ranked_by, emotions).nan_to_num()
    if search.neurons:
        neurons = _exact_of_best(search, neurons)
    return _taken(search, neurons, heads, "exact total effect")


def _learned(search: Search) -> Circuit:
    settings = MaskSettings(search.neurons, search.heads)
    emotions = search.circuit.emotions
    scores = learned_masks(search.model, *search.ranked_by, emotions, settings)
    return _taken(search, scores.neurons, scores.heads, settings.method)


def _exact_of_best(
    search: Search, first: Float[Tensor, "emotion layer d_mlp"]
) -> Float[Tensor, "emotion layer d_mlp"]:
    """Exact effects of each emotion's candidates; all others just below the lowest of them."""
    found = torch.empty_like(first)
    for e, emotion in enumerate(search.circuit.emotions):
        count = min(CANDIDATES * search.neurons, first[e].numel())
        chosen = torch.zeros_like(first[e], dtype=torch.bool)
        chosen.view(-1)[first[e].flatten().topk(count).indices] = True
        own = torch.arange(first.shape[-1]) < search.circuit.sizes[:, 1:2]
        exact = total_effects(
            search.model,
            *search.ranked_by,
            [emotion],
            kind="neurons",
            units=chosen & own,
        )[0]
        lowest = float(exact[exact.isfinite()].min())
        found[e] = exact.nan_to_num(nan=lowest - abs(lowest) * 1e-3 - 1e-9)
    return found


def _by_slopes(search: Search, settings: GradientSettings) -> Circuit:
    scores = _slopes(search, settings)
    return _taken(search, scores.neurons, scores.heads, settings.method)


def _slopes(search: Search, settings: GradientSettings) -> UnitScores:
    task, means = search.ranked_by
    return gradient_scores(search.model, task, Against(means), search.circuit.emotions, settings)


def _taken(search: Search, neurons: Tensor, heads: Tensor, how: str) -> Circuit:
    return reranked(
        search.circuit, neurons, heads, neurons=search.neurons, heads=search.heads, how=how
    )


DIRECT = Strategy(
    "direct",
    "highest contributions to the direction, without floors",
    _direct,
    reads_task=False,
)
ATTRIBUTION_PATCHING = Strategy(
    "attribution_patching",
    "highest slopes of the task's margin, later layers included",
    _patching,
    slopes=GradientSettings(),
)
EAP_IG = Strategy(
    "eap_ig",
    "the same, slopes averaged on the way to the mean",
    _eap_ig,
    slopes=GradientSettings("activations"),
)
TOTAL_EFFECT = Strategy(
    "total_effect",
    "exact falls of the task's margin; neurons among the best by slope",
    _total_effect,
)
LEARNED_MASK = Strategy(
    "learned_mask",
    "the set whose loss costs most, looked for by gradients of a mask: an upper bound",
    _learned,
)
