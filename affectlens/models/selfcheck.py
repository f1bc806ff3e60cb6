"""Does the anatomy describe this model? Found out by one short forward pass.

The adapters cover families that add scaled sublayers, norms after the addition, or experts; a wrong
reading there gives plausible numbers. So the identities the rest of the package relies on are
checked on four tokens when a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from affectlens.core.errors import ModelError
from affectlens.core.sites import KINDS, Site
from affectlens.models.anatomy import Anatomy
from affectlens.models.hooks import reading

TOLERANCE = 0.03
"""Relative error allowed per block; bfloat16 rounds at 0.4 %."""


def check_anatomy(hf: Any, anatomy: Anatomy) -> None:
    """Hold ``resid_post = resid_pre + attn_out + mlp_out`` and ``o_proj(z) = z·W_O + b_O``.

    Raises:
        ModelError: If an identity fails or the model cannot run on four tokens.
    """
    seen: dict[Site, Tensor] = {}

    def keep(site: Site, value: Tensor) -> None:
        seen[site] = value.detach().float().reshape(-1, value.shape[-1]).clone()

    kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    sites = [
        Site(layer, kind)
        for layer in range(anatomy.n_layers)
        for kind in KINDS
        if kind != "resid_mid" or not anatomy.parallel
    ]
    vocab = hf.get_input_embeddings().weight.shape[0]
    device = hf.get_input_embeddings().weight.device
    ids = torch.arange(4, device=device).remainder(vocab).unsqueeze(0)
    first = anatomy.blocks[0]
    plain: list[Tensor] = []
    handle = first.o_proj.register_forward_hook(
        lambda _module, _args, output: plain.append(output.detach().float().flatten(0, -2))
    )
    try:
        with torch.no_grad(), reading(anatomy, sites, keep):
            anatomy.base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{anatomy.family}: the model does not run on a plain prompt ({_line(error)})."
        ) from error
    finally:
        handle.remove()
    if len(seen) < len(sites):
        missing = next(site for site in sites if site not in seen)
        raise ModelError(f"{anatomy.family}: {missing.hook_name} is never computed in this model.")

    for layer in range(anatomy.n_layers):
        pre, attn, mlp, post = (seen[Site(layer, kind)] for kind in kinds)
        _require(pre + attn + mlp, post, anatomy, f"block {layer} does not add up to its output")
        if not anatomy.parallel:
            mid = seen[Site(layer, "resid_mid")]
            _require(pre + attn, mid, anatomy, f"the middle of block {layer} does not add up")
    bias = first.b_O()
    value = seen[Site(0, "z")] @ first.W_O().flatten(0, 1) + (0 if bias is None else bias)
    _require(value, plain[0], anatomy, "the heads of block 0 do not add up to its attention")


def _require(value: Tensor, wanted: Tensor, anatomy: Anatomy, what: str) -> None:
    error = float((value - wanted).norm() / wanted.norm().clamp_min(1e-12))
    if not error <= TOLERANCE:
        raise ModelError(
            f"{anatomy.family} computes its residual stream in another way than affectlens expects "
            f"({what}, relative error {error:.2g}); this variant is not supported."
        )


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
