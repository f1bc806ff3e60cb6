"""Packs of the residual mode, of whatever directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.core.places import Site

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.geometry import Directions
    from affectlens.steering.methods.base import Material
    from affectlens.steering.pack import SteeringPack

ESTIMATED = (0.5, 0.9, 1.6)
"""Strengths to try first for directions as they are estimated, in natural doses."""
REFINED = (0.6, 0.85, 1.2)
"""The same for what a descent has made for strength 1."""


def folded(found: Material, directions: Directions) -> SteeringPack:
    """Directions at the steered blocks, as a pack."""
    from affectlens.steering.pack import SteeringPack

    return SteeringPack.from_directions(directions, found.model, layers=found.layers, rms=found.rms)


def estimated(
    estimator: str, *, neutral_removed: bool = False, matched: bool = False
) -> Callable[[Material], SteeringPack]:
    """A source of vectors: directions of an estimator, at the steered blocks.

    Args:
        estimator: A name in `affectlens.geometry.ESTIMATORS`.
        neutral_removed: Project out what neutral replies vary along.
        matched: Estimate on matched replies, which have the neutral tone, in place of the texts
            that express each emotion.
    """

    def make(found: Material) -> SteeringPack:
        from affectlens.geometry import directions

        store: ActivationStore = found.matched if matched else found.expression
        made = directions(
            store,
            emotions=found.emotions,
            estimator=estimator,
            sites=[Site(layer, "resid_post") for layer in found.layers],
            clean=found.neutral_rows if neutral_removed else False,
            splits=0,
        )
        return folded(found, made)

    return make


def likely(found: Material) -> SteeringPack:
    """Directions refined by likelihood."""
    return folded(found, found.directions(refined=True))


def preferred(found: Material) -> SteeringPack:
    """Directions refined by RePS, from the same start and in as many steps."""
    from affectlens.steering.refine import refine_directions

    refined = refine_directions(
        found.model,
        found.directions(refined=False),
        found.corpora,
        layers=found.layers,
        settings=replace(found.descent("residual"), objective="reps"),
    )
    return folded(found, refined)
