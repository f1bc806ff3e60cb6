"""Neurons: the exact contribution of each to its layer's direction, without an extra pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts


def neuron_weights(
    part: BlockParts, v: Float[Tensor, "emotion d_model"], gain: Float[Tensor, " d_model"] | None
) -> Float[Tensor, "emotion d_mlp"]:
    """``β[e] = W_downᵀ (g ⊙ v[e])``: what one unit of a neuron adds along the direction.

    Args:
        part: The block.
        v: Directions at ``resid_post`` of the same layer.
        gain: Weight ``g`` of a norm after the MLP, if there is one.
    """
    return (v if gain is None else v * gain) @ part.W_down().T


def neuron_contributions(
    activation: Float[Tensor, "*row emotion d_mlp"], weights: Float[Tensor, "emotion d_mlp"]
) -> Float[Tensor, "*row emotion d_mlp"]:
    """``c[e,n] = a[n] β[e,n]``; linear in ``a``, so means of activations give mean contributions.

    Invariant: ``Σ_n c[e,n] + ⟨bias, v[e]⟩ = ⟨mlp_out, v[e]⟩`` (with a post-norm: activations and
    bias times its scale, see :mod:`affectlens.circuits.attribution.postnorm`).

    Source: arXiv 2510.11328 §5, script 04/1.
    """
    return activation * weights
