"""Heads: the exact contribution of each to its layer's direction, without an extra pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts


def head_weights(
    part: BlockParts, v: Float[Tensor, "emotion d_model"], gain: Float[Tensor, " d_model"] | None
) -> Float[Tensor, "emotion n_heads d_head"]:
    """``β[e,h] = W_O[h] (g ⊙ v[e])``: what one unit of each channel of ``z`` adds along it.

    Args:
        part: The block.
        v: Directions at ``resid_mid`` (or ``resid_post``) of the same layer.
        gain: Weight ``g`` of a norm after attention, if there is one.
    """
    return torch.einsum("ed,hkd->ehk", v if gain is None else v * gain, part.W_O())


def head_contributions(
    z: Float[Tensor, "*row emotion width"], weights: Float[Tensor, "emotion n_heads d_head"]
) -> Float[Tensor, "*row emotion n_heads"]:
    """``c[e,h] = ⟨z[h] W_O[h], v[e]⟩``: the drop of ``⟨resid_mid, v[e]⟩`` if ``z[h]`` were zero.

    Exactly what zeroing the head's slice at the input of ``W_O``, at all positions, changes at the
    read position of the same layer: other positions cannot reach it within the layer. With a
    post-norm, ``z`` times the norm's scale at that token gives shares of the whole; zeroing would
    change the scale as well.

    Invariant: ``Σ_h c[e,h] + ⟨bias, v[e]⟩ = ⟨attn_out, v[e]⟩``.

    Source: arXiv 2510.11328 §5, script 04/2, which runs a pass per head and reads after a norm.
    """
    return (z.unflatten(-1, weights.shape[1:]) * weights).sum(-1)
