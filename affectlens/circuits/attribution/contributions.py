"""What every neuron and head adds to its layer's emotion directions, from one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.postnorm import norm_gain
from affectlens.circuits.attribution.sublayer_directions import (
    SublayerDirections,
    sublayer_directions,
)
from affectlens.circuits.attribution.unit_maps import head_map, neuron_map
from affectlens.circuits.attribution.unit_means import UnitMeans
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.linear_map import is_quantised
from affectlens.models.placement import device_of

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

SCORES: tuple[str, ...] = ("mean", "contrast")
"""``mean``: over the emotion's samples (published). ``contrast``: that minus the mean over all
emotions' samples, so that units which always write along the direction do not count."""

RESIDUE, RESIDUE_16 = 1e-3, 0.05
"""Largest residue that is put down to rounding, in float32 and in 16-bit formats."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """Exact direct contributions, averaged over the samples of each emotion.

    ``neurons.sum(-1) + bias[..., 1] == totals[..., 1]`` and
    ``heads.sum(-1) + bias[..., 0] == totals[..., 0]``, up to rounding.

    Attributes:
        emotions: Order of the first axis.
        neurons: ``⟨a[n] W_down[n], v[e]⟩``, in units of the residual stream. Of a neuron of an
            expert, ``a`` is its activation times what the router gave the expert, 0 for tokens
            that were sent elsewhere.
        heads: ``⟨z[h] W_O[h], v[e]⟩``, likewise.
        bias: What the biases of ``W_O`` and ``W_down`` add, (attention, MLP) on the last axis.
        totals: ``⟨attn_out, v[e]⟩`` and ``⟨mlp_out, v[e]⟩``; 0 where a layer has no such units.
        neurons_by_valence, heads_by_valence: The same from the samples of one valence.
        score: One of :data:`SCORES`.
        attn_site: Where attention's directions are from, ``resid_mid`` or ``resid_post``.
        means: The activations they were made from.
    """

    emotions: tuple[str, ...]
    neurons: Float[Tensor, "emotion layer d_mlp"]
    heads: Float[Tensor, "emotion layer n_heads"]
    bias: Float[Tensor, "emotion layer 2"]
    totals: Float[Tensor, "emotion layer 2"]
    neurons_by_valence: Mapping[str, Float[Tensor, "emotion layer d_mlp"]]
    heads_by_valence: Mapping[str, Float[Tensor, "emotion layer n_heads"]]
    score: str
    attn_site: str
    means: UnitMeans

    @property
    def fingerprint(self) -> str:
        """Of the scores, and of the means that differences are taken from."""
        kept = (self.neurons, self.heads, self.means.neurons, self.means.heads, self.means.weights)
        return fingerprint(self.emotions, *(x.contiguous().numpy().tobytes() for x in kept))

    def residue(self) -> float:
        """Largest violation of the two sums above, relative to the largest total."""
        sums = torch.stack([self.heads.sum(-1), self.neurons.sum(-1)], dim=-1) + self.bias
        return float((sums - self.totals).abs().max() / self.totals.abs().max().clamp_min(1e-12))


def contributions(
    model: LanguageModel,
    corpus: Corpus,
    directions: Directions,
    *,
    position: str | None = None,
    score: str = "mean",
    grouped: bool | None = None,
    max_tokens_per_batch: int = 4096,
) -> Contributions:
    """Score every neuron and head in one pass over the corpus.

    Args:
        model: The model.
        corpus: Records labelled with the directions' emotions.
        directions: At ``resid_post`` of all layers, and at ``resid_mid`` if heads shall be scored
            right after attention.
        position: Where to read; default: the design's.
        score: One of :data:`SCORES`.
        grouped: See :func:`affectlens.circuits.attribution.unit_means.cell_weights`.
        max_tokens_per_batch: Padded tokens per forward pass.

    Raises:
        DataError: If records, layers or emotions are missing.
        UnknownNameError: If the position or the score does not exist.
        ModelError: If units and biases do not sum to what the sublayers add.
    """
    refuse_listeners(model.hf, "Contributions")
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    found = sublayer_directions(directions, model.anatomy)
    means = unit_means(
        model,
        corpus,
        found.emotions,
        position=position,
        grouped=grouped,
        max_tokens_per_batch=max_tokens_per_batch,
    )
    scored = score_units(model, means, found, score=score)
    _require_exact(model, scored if score == "mean" else score_units(model, means, found))
    return scored


def _require_exact(model: LanguageModel, scored: Contributions) -> None:
    """Whatever came between weights and residual since the model was loaded is not passed over."""
    blocks = model.anatomy.blocks
    maps = [m for part in blocks for m in (part.o_proj, part.down_proj) if m is not None]
    packed = any(is_quantised(unwrap(module)) for module in maps)
    bound = RESIDUE if model.dtype == torch.float32 and not packed else RESIDUE_16
    residue = scored.residue()
    if not residue <= bound:
        raise ModelError(
            f"Heads, neurons and biases of {model.name} do not sum to what its sublayers add "
            f"(residue {residue:.2g}); remove hooks, leave steering, and load the model anew."
        )


@torch.no_grad()
def score_units(
    model: LanguageModel, means: UnitMeans, directions: SublayerDirections, *, score: str = "mean"
) -> Contributions:
    """Contributions from means taken before; costs no pass over the model.

    Raises:
        DataError: If the emotions differ.
        UnknownNameError: If the score does not exist.
    """
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    if means.emotions != directions.emotions:
        raise DataError(
            f"The means are of {', '.join(means.emotions)}, the directions of "
            f"{', '.join(directions.emotions)}; make both for the same emotions."
        )
    filled = (means.weights > 0).all(0).tolist()
    views: list[str | None] = [None]  # all valences together, then each that has every emotion
    views += [v for v, ok in zip(means.valences, filled, strict=True) if v and ok]
    neurons: dict[str | None, list[Tensor]] = {view: [] for view in views}
    heads: dict[str | None, list[Tensor]] = {view: [] for view in views}
    bias, totals = list[Tensor](), list[Tensor]()

    def centred(name: str, view: str | None = None) -> Tensor:
        value = means.mean(name, view)
        return value - value.mean(0) if score == "contrast" else value

    inputs = {
        view: (centred("scaled_heads", view), centred("scaled_neurons", view)) for view in views
    }
    out, scale, gates = centred("out"), centred("scale"), centred("scaled_gates")
    anatomy = model.anatomy
    none = torch.zeros(len(means.emotions))

    for part in anatomy.blocks:
        layer = part.layer
        v = directions.vectors[:, layer].to(device_of(part.block))  # [emotion, 2, d_model]
        folded = [
            _before_norm(v[:, 0], part.attn_post_norm, part.attn_scale),
            _before_norm(v[:, 1], part.mlp_post_norm, part.mlp_scale),
        ]
        maps = head_map(part, anatomy.n_heads, anatomy.d_head), neuron_map(part)
        beta = [
            None if f is None else f.weights(w).cpu() for f, w in zip(maps, folded, strict=True)
        ]
        for view in views:
            z, activation = (x[:, layer] for x in inputs[view])
            heads[view].append(_head_contributions(z, beta[0], anatomy.n_heads))
            neurons[view].append(_neuron_contributions(activation, beta[1]))
        constant = [
            none
            if f is None
            else _constant(part, i, folded[i], scale[:, layer, i], gates[:, layer])
            for i, f in enumerate(maps)
        ]
        bias.append(torch.stack(constant, dim=-1))
        there = torch.tensor([f is not None for f in maps])
        totals.append((out[:, layer] * directions.vectors[:, layer]).sum(-1) * there)

    def stacked(values: dict[str | None, list[Tensor]]) -> dict[str | None, Tensor]:
        return {view: torch.stack(rows, dim=1) for view, rows in values.items()}

    all_neurons, all_heads = stacked(neurons), stacked(heads)
    return Contributions(
        emotions=means.emotions,
        neurons=all_neurons.pop(None),
        heads=all_heads.pop(None),
        bias=torch.stack(bias, dim=1),
        totals=torch.stack(totals, dim=1),
        neurons_by_valence={str(k): v for k, v in all_neurons.items()},
        heads_by_valence={str(k): v for k, v in all_heads.items()},
        score=score,
        attn_site=directions.attn_site,
        means=means,
    )


def _before_norm(
    v: Float[Tensor, "emotion d_model"], norm: nn.Module | None, factor: float
) -> Float[Tensor, "emotion d_model"]:
    """What to score a projection's output on: ``g ⊙ v`` with a norm after it, whose scale is in the
    means; otherwise ``v`` times the factor that the output has on its way to the stream."""
    gain = norm_gain(norm, v)
    return v * factor if gain is None else v * gain.to(v.device)


def _head_contributions(
    z: Float[Tensor, "emotion width"], beta: Float[Tensor, "emotion width"] | None, n_heads: int
) -> Float[Tensor, "emotion n_heads"]:
    """``c[e,h] = ⟨z[h] W_O[h], v[e]⟩``: the drop of ``⟨resid_mid, v[e]⟩`` if ``z[h]`` were zero.

    Exactly what zeroing the head's slice at the input of ``W_O``, at all positions, changes at the
    read position of the same layer: other positions cannot reach it within the layer. With a
    post-norm, ``z`` times the norm's scale at that token gives shares of the whole; zeroing would
    change the scale as well.

    Source: arXiv 2510.11328 §5, script 04/2, which runs a pass per head and reads after a norm.
    """
    if beta is None:
        return z.new_zeros(len(z), n_heads)
    return (z * beta).unflatten(-1, (n_heads, -1)).sum(-1)


def _neuron_contributions(
    activation: Float[Tensor, "emotion wide"], beta: Float[Tensor, "emotion d_mlp"] | None
) -> Float[Tensor, "emotion wide"]:
    """``c[e,n] = a[n] ⟨W_down[n], v[e]⟩``; linear in ``a``, so means of activations will do.

    For a neuron of an expert, ``a`` is the activation times the gate, which is 0 for tokens that
    the router sent elsewhere.

    Source: arXiv 2510.11328 §5, script 04/1.
    """
    if beta is None:
        return torch.zeros_like(activation)
    return activation * pad(beta, (0, activation.shape[-1] - beta.shape[-1]))


def _constant(
    part: BlockParts,
    sublayer: int,
    v: Float[Tensor, "emotion d_model"],
    scale: Float[Tensor, " emotion"],
    gates: Float[Tensor, "emotion expert"],
) -> Float[Tensor, " emotion"]:
    """What biases add along ``v``, after `_before_norm`; under score ``contrast`` a constant
    without a norm cancels. Biases of experts count as often as their gates say."""
    total = torch.zeros_like(scale)
    if sublayer == 0:
        bias = part.b_O()
    elif part.experts is None:
        bias = part.b_down()
    else:
        bias, routed = part.experts.shared_bias(), part.experts.b_down()
        if routed is not None:
            each = (v.to(routed.device) @ routed.T).cpu()
            total = (gates[:, : each.shape[1]] * each).sum(-1)
    return total if bias is None else total + (v @ bias.to(v.device)).cpu() * scale
