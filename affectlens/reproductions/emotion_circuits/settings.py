"""The published constants."""

from __future__ import annotations

from dataclasses import dataclass, field

from affectlens.circuits.allocation import Budget
from affectlens.models.generation.decoding import GenerationSettings

DEPTH = 28
"""Layers of the paper's model, Llama-3.2-3B-Instruct."""


def _greedy() -> GenerationSettings:
    return GenerationSettings(max_new_tokens=100, repetition_penalty=1.0)


def _penalised(penalty: float) -> GenerationSettings:
    return GenerationSettings(
        max_new_tokens=100, min_new_tokens=10, repetition_penalty=penalty, no_repeat_ngram=3
    )


@dataclass(frozen=True)
class PaperSettings:
    """Constants of arXiv 2510.11328, and how much is measured beside them.

    Attributes:
        prompted: Decoding of prompted and unsteered replies.
        steered: Decoding of replies with the residual stream steered.
        modulated: Decoding of replies with a circuit modulated.
        alpha: Steering of the residual, in units of its RMS at the token.
        strength: Of the circuit.
        steered_band: First and last layer steered, of 28.
        similarity_layer: Where emotions are compared, of 28.
        alphas: Sizes of the push that measures influence.
        budget: Units of a circuit; no bound on the share of a model's heads.
        counts: Units that curves are read at.
        influence_prompts: Neutral prompts that influence is measured on.
        draws: Random sets of units beside every curve, permutations beside every silhouette.
        bootstrap: Draws of groups for intervals of cosines.
        min_groups: Complete groups that directions need.
    """

    prompted: GenerationSettings = field(default_factory=_greedy)
    steered: GenerationSettings = field(default_factory=lambda: _penalised(1.05))
    modulated: GenerationSettings = field(default_factory=lambda: _penalised(1.1))
    alpha: float = 8.0
    strength: float = 1.0
    steered_band: tuple[int, int] = (11, 20)
    similarity_layer: int = 20
    alphas: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    budget: Budget = field(default_factory=lambda: Budget(max_share=1.0))
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    influence_prompts: int = 8
    draws: int = 20
    bootstrap: int = 200
    min_groups: int = 4


def scaled(layer: int, n_layers: int) -> int:
    """A layer of the paper's 28 at the same depth of another model."""
    return min(round(layer * n_layers / DEPTH), n_layers - 1)


def steered_layers(band: tuple[int, int], n_layers: int) -> range:
    """The steered layers at the same depth; as many as published, where there are as many."""
    first = scaled(band[0], n_layers)
    return range(first, min(first + band[1] - band[0], n_layers - 1) + 1)
