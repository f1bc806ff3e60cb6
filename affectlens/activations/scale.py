"""How large the residual stream is: what strengths of unit ``rms`` are measured in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site
from affectlens.models.hooking.hooks import reading

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

OUTLIER = 4.0
"""Tokens beyond so many medians of their layer are attention sinks, not text."""


@torch.no_grad()
def residual_rms(
    model: LanguageModel, prompts: Sequence[Sequence[int]]
) -> Float[Tensor, " n_layers"]:
    """Mean root mean square of the residual stream after each block.

    Attention sinks are left out: the first token of every prompt, and tokens several times larger
    than the others. Their size says nothing about those that are steered.

    Args:
        model: The model.
        prompts: Token ids, of neutral text such as the model is going to be steered on.

    Returns:
        Float32, on the CPU; `SteeringPack.with_rms` takes it.

    Raises:
        DataError: If no prompt has a second token, or the residual overflows.
    """
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def read(site: Site, hidden: Tensor) -> None:
        found[site].append(hidden[0, 1:].float().pow(2).mean(-1).sqrt().cpu())

    for ids in (ids for ids in prompts if len(ids) > 1):
        # One at a time, so that nothing is padding.
        inputs = torch.tensor([list(ids)], device=model.device)
        with reading(model.anatomy, sites, read):
            model.anatomy.base(input_ids=inputs, use_cache=False)
    if not found[sites[0]]:
        raise DataError(
            "The residual's RMS is measured on prompts of two tokens and more; give some."
        )
    sizes = torch.stack([torch.cat(found[site]) for site in sites])
    if not bool(sizes.isfinite().all()):
        raise DataError("The residual stream overflows; load the model in bfloat16 or float32.")
    text = sizes <= OUTLIER * sizes.median(1, keepdim=True).values
    return (sizes * text).sum(1) / text.sum(1)
