"""Steps along the gradient of a classifier of all emotions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from affectlens.core.places import Site
from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.residual import ESTIMATED

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from affectlens.steering.classifier import Classifier
    from affectlens.steering.pack import SteeringPack

PENALTY = 0.1
"""As of `affectlens.probes.estimators.mlp`. A classifier that is sure of every text it was fitted
on has no slope left there."""


def fitted(found: Material) -> SteeringPack:
    """A classifier of the emotions after each steered block, fitted on the texts of directions."""
    from affectlens.geometry.grouping import find_groups
    from affectlens.steering.building import pack_provenance
    from affectlens.steering.classifier import GRADIENT, mean_steps
    from affectlens.steering.pack import SteeringPack

    store, emotions, layers = found.expression, found.emotions, found.layers
    groups, directions = find_groups(store, emotions), found.directions(refined=False)
    sites = [Site(layer, "resid_post") for layer in layers]
    rows = torch.stack([store.to_torch(site)[groups.rows].float().cpu() for site in sites])
    doses = directions.norms[[directions.site_index(site) for site in sites]].float().cpu()
    classifier = classifier_of(rows, groups.emotion.cpu(), doses)
    name = f"{GRADIENT}.resid_post"
    return SteeringPack(
        emotions=emotions,
        vectors={name: mean_steps(classifier, rows.mean(1))},
        classifier=classifier,
        layers={name: layers},
        n_layers=found.model.n_layers,
        d_model=found.model.d_model,
        recommended={GRADIENT: dict.fromkeys(emotions, 1.0)},
        positions={GRADIENT: "last_prompt+generated"},
        rms=found.rms,
        provenance=pack_provenance(
            found.model,
            directions.provenance,
            classifier={"store": store.fingerprint, "penalty": PENALTY, "layers": list(layers)},
        ),
    )


def classifier_of(
    rows: Float[Tensor, "layer n d"],
    emotion: Int[Tensor, " n"],
    doses: Float[Tensor, "layer emotion"],
) -> Classifier:
    """Fit a classifier per block, and set how long its steps are.

    Args:
        rows: Hidden states of texts.
        emotion: Which of the emotions each text expresses.
        doses: Natural doses: a step of strength 1 is as long as they are, on average over the texts
            and the emotions steered towards.
    """
    from affectlens.probes.estimators.mlp import fit_mlp
    from affectlens.steering.classifier import Classifier

    k, weight = doses.shape[1], torch.ones(1, rows.shape[1])
    fit = fit_mlp(rows, emotion, (PENALTY,), n_classes=k, weight=weight)
    inner, bias, outer, outer_bias = (part[:, 0, 0] for part in fit.parts().values())
    found = Classifier(inner.mT, bias, outer.mT, outer_bias, torch.ones(len(rows)))
    eye = torch.eye(k)
    slopes = [
        found.ascent(layer[:, None].expand(-1, k, -1), eye, i).norm(dim=-1).mean()
        for i, layer in enumerate(rows)
    ]
    return replace(found, step=doses.mean(1) / torch.stack(slopes).clamp_min(1e-12))


K_STEERING = Method(
    "k_steering",
    "Steps along the gradient of a classifier of all emotions (K-Steering)",
    "h + s·η ∇ log p(e | h), p a classifier with one hidden layer, η a natural dose / mean |∇|",
    "a step as long as a natural dose, on average",
    "Oozeer et al. 2025 (arXiv 2505.24535), one step",
    "one pass over the texts, a classifier per block and at every token; not in servers",
    "several emotions at once, some away from",
    fitted,
    "gradient",
    strengths=ESTIMATED,
)
