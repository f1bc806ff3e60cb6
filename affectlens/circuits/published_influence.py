"""Sublayer influence as arXiv 2510.11328 publishes it, beside which `influence` is a correction.

The published code reads the end of the model after its last norm, turns every direction to the side
of the reference axis, and measures its pushes by one RMS for all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.influence import ALPHAS, band, push_all, reference_direction
from affectlens.circuits.last_token_replay import in_float, last_token
from affectlens.core.errors import DataError
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True)
class InfluenceReading:
    """What is pushed and where its effect is read.

    Attributes:
        alphas: Sizes of the push, in units of σ.
        normed: Read after the final norm (published) instead of in the residual stream.
        aligned: Turn every direction to the side of the late reference axis (published).
    """

    alphas: tuple[float, ...] = ALPHAS
    normed: bool = True
    aligned: bool = True

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) <= 0:
            raise DataError("The sizes of the push (alphas) must be positive.")


@torch.no_grad()
def published_influence(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    directions: Directions,
    sigma: Float[Tensor, "layer 2"],
    reading: InfluenceReading = InfluenceReading(),
    *,
    max_rows: int = 256,
) -> Mapping[str, Float[Tensor, "prompt alpha emotion layer 2"]]:
    """``(⟨h', v_ref⟩ - ⟨h, v_ref⟩) / (α σ)`` at the last token, for every push.

    Args:
        model: The model.
        prompts: Token ids of neutral prompts, generation prompt included.
        directions: Unit directions at ``resid_post`` of all layers (and ``resid_mid`` if there).
        sigma: RMS of the residual at each sublayer, (attention, MLP) on the last axis.
        reading: What is pushed, and where it is read.
        max_rows: Rows per replayed block; bounds the memory of the copied cache.

    Returns:
        Gains on the reference axis of the ``late`` band (published) and of the ``middle`` one.

    Raises:
        DataError: If there is no prompt, σ is not positive, or the directions do not cover the
            model.

    Source: arXiv 2510.11328 §6, script 06/3.
    """
    refuse_listeners(model.hf, "Influence")
    if not prompts:
        raise DataError("Influence needs at least one neutral prompt.")
    if not bool((sigma > 0).all()):
        raise DataError("The RMS of the residual must be positive at every sublayer.")
    vectors = sublayer_directions(directions, model.anatomy).vectors.to(model.device)
    references = {
        name: reference_direction(vectors, band(model.n_layers, name))
        for name in ("late", "middle")
    }
    if reading.aligned:
        side = torch.einsum("elpd,ed->elp", vectors, references["late"])
        vectors = torch.where((side < 0)[..., None], -vectors, vectors)
    sizes = torch.tensor(reading.alphas, device=model.device)[:, None, None] * sigma.to(
        model.device
    )
    gains: dict[str, list[Tensor]] = {name: [] for name in references}
    with progress("influence", len(prompts)) as advance:
        for ids in prompts:
            base, rows = push_all(last_token(model, ids), vectors, sizes, max_rows)
            if reading.normed:
                base, rows = (in_float(model.anatomy.final_norm, x) for x in (base, rows))
            change = (rows - base) / sizes[..., None, None]
            for name, reference in references.items():
                gains[name].append(torch.einsum("alped,ed->aelp", change, reference).cpu())
            advance(1)
    return {name: torch.stack(each) for name, each in gains.items()}
