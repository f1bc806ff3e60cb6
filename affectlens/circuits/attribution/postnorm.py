"""Norms between a sublayer and the residual (Gemma 2/3, OLMo 2), folded into exact attributions.

There the residual receives ``g ⊙ y · s`` with ``s = 1/rms(y)``: not linear in the sublayer's output
``y``, but exactly linear once ``s`` is held at the value it had at that token. So a unit's share of
``⟨out, v⟩`` is its share of ``⟨y, g ⊙ v⟩`` times ``s``, and the shares still sum to the whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import ModelError
from affectlens.models.placement import device_of


@torch.no_grad()
def norm_gain(norm: nn.Module | None, like: Tensor) -> Float[Tensor, " d_model"] | None:
    """The weight ``g`` of an RMS norm, fp32, whatever its parametrisation; None without a norm.

    Args:
        norm: The module.
        like: A tensor ``[..., d_model]``.

    Raises:
        ModelError: If the module does more than scale by a weight and one number per token.
    """
    if norm is None:
        return None
    width, device = like.shape[-1], device_of(norm)
    ones = torch.ones(1, 1, width, dtype=torch.float32, device=device)
    gain = norm(1e4 * ones).float().flatten()  # so large that the norm's epsilon is nothing
    probe = torch.linspace(-1.0, 2.0, width, device=device).view(1, 1, -1)
    out = norm(probe).float()
    error = out - token_scale(probe, out, gain)[..., None] * gain * probe
    if float(error.norm()) > 1e-2 * float(out.norm()):
        raise ModelError(
            f"The norm after a sublayer ({type(norm).__name__}) is no RMS norm, so contributions "
            "of single units are not defined; this family is not supported."
        )
    return gain


def token_scale(
    before: Float[Tensor, "*token d_model"],
    after: Float[Tensor, "*token d_model"],
    gain: Float[Tensor, " d_model"],
) -> Float[Tensor, " *token"]:
    """What a norm multiplied each token by: least squares of ``after = s g ⊙ before``."""
    expected = before.float() * gain
    return (after.float() * expected).sum(-1) / expected.square().sum(-1).clamp_min(1e-30)
