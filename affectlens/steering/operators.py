"""What steering does to hidden states: pure functions of tensors, the same for every back end.

Sums are formed in float32 and rounded to the model's number format once. Adding minus zero is exact
for every number (``x + -0.0 == x``, also for -0.0), so rows and tokens that are not steered come
out bit for bit as they went in.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NOTHING = -0.0
"""The identity of addition. Plus zero is not: it turns -0.0 into 0.0."""


def quiet(vector: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Zeros of a vector as `NOTHING`, so that adding them changes no bit."""
    return torch.where(vector == 0, NOTHING, vector)


def add(
    hidden: Float[Tensor, "batch pos d"], vector: Float[Tensor, "batch _ d"]
) -> Float[Tensor, "batch pos d"]:
    """``h + v``.

    Args:
        hidden: Any float format.
        vector: Float32, per row or per token; `NOTHING` where nothing is to change.
    """
    return (hidden.float() + vector).to(hidden.dtype)


def add_keep_norm(
    hidden: Float[Tensor, "batch pos d"],
    vector: Float[Tensor, "batch _ d"],
    on: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d"]:
    """``(h + v) * |h| / |h + v|``: turn a hidden state without making it longer.

    Args:
        hidden: Any float format.
        vector: Float32, per row or per token.
        on: Tokens to change; the others stay bit for bit.
    """
    plain = hidden.float()
    moved = plain + vector
    norms = moved.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    turned = moved * (plain.norm(dim=-1, keepdim=True) / norms)
    return torch.where(on[..., None], turned.to(hidden.dtype), hidden)


def move_projections(
    hidden: Float[Tensor, "batch pos d"],
    directions: Float[Tensor, "batch k d"],
    dual: Float[Tensor, "batch k d"],
    scale: Float[Tensor, "batch k"],
    shift: Float[Tensor, "batch k"],
    on: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d"]:
    """Change the projections ``p = <h, v>`` to ``scale * p + shift`` by the smallest change of h.

    ``h + (scale * p + shift - p) @ dual``; with one direction that is ``h + (p' - p) v``. Ablating
    is ``scale = 0`` (arXiv 2406.11717 §2.4), clamping to a value is ``scale = 0, shift = value``.

    Args:
        hidden: Any float format.
        directions: Unit vectors per row; zero rows do nothing.
        dual: Of `dual_basis`.
        scale: What remains of each projection.
        shift: What is added to each.
        on: Tokens to change; the others stay bit for bit.
    """
    plain = hidden.float()
    projections = torch.einsum("bpd,bkd->bpk", plain, directions)
    change = (scale[:, None] - 1) * projections + shift[:, None]
    moved = plain + torch.einsum("bpk,bkd->bpd", change, dual)
    return torch.where(on[..., None], moved.to(hidden.dtype), hidden)


def dual_basis(directions: Float[Tensor, "... k d"]) -> Float[Tensor, "... k d"]:
    """Vectors ``w`` in the span of ``v`` with ``<w_i, v_j> = 1`` if i = j, else 0.

    Directions that depend on each other (six centred ones always do) get the least-squares answer;
    zero rows stay zero.
    """
    pseudo = torch.linalg.pinv(directions.double(), rtol=1e-5)
    return pseudo.transpose(-1, -2).to(directions.dtype)


def unit(vectors: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Vectors of norm 1; zero vectors stay zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny), 0.0)


def project_out(
    hidden: Float[Tensor, "batch pos d"],
    directions: Float[Tensor, "k d"],
    share: float = 1.0,
) -> Float[Tensor, "batch pos d"]:
    """Take a share of the projections on directions out of all tokens (directional ablation)."""
    k = len(directions)
    return _everywhere(hidden, directions, torch.full((k,), 1.0 - share), torch.zeros(k))


def clamp(
    hidden: Float[Tensor, "batch pos d"],
    directions: Float[Tensor, "k d"],
    values: Float[Tensor, " k"],
) -> Float[Tensor, "batch pos d"]:
    """Set the projections on directions to values, in all tokens."""
    return _everywhere(hidden, directions, torch.zeros(len(directions)), values)


def _everywhere(hidden: Tensor, directions: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    batch, pos = hidden.shape[:2]
    vectors = unit(directions.float()).to(hidden.device)
    rows = [
        t.to(hidden.device).expand(batch, *t.shape)
        for t in (vectors, dual_basis(vectors), scale.float(), shift.float())
    ]
    on = torch.ones(batch, pos, dtype=torch.bool, device=hidden.device)
    return move_projections(hidden, rows[0], rows[1], rows[2], rows[3], on)
