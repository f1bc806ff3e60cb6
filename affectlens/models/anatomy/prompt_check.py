"""What a pass over a prompt says about a model that is taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectlens.models.anatomy.levels import levels
from affectlens.models.anatomy.selfcheck import largest_errors
from affectlens.models.weights import ENGLISH

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


def check(model: LanguageModel, prompt: str | None = None) -> dict[str, str]:
    """Hold every sum that is relied on against the model's own numbers.

    Args:
        model: The model.
        prompt: Text to run; default: an English sentence.

    Returns:
        For people, by name: the family, the level of its layers, the largest relative error of each
        kind of site and where it is, and the largest of all.
    """
    import torch

    encoded: Any = model.tokenizer(prompt or ENGLISH)
    ids = torch.tensor([encoded["input_ids"]], device=model.device)
    errors = largest_errors(model.hf, model.anatomy, ids)
    worst = max((error for error, _ in errors.values()), default=0.0)
    return {
        "family": f"{model.anatomy.family}, known by {model.anatomy.known_by}",
        **{f"layers {layers}": f"{level}: {what}" for layers, level, what in levels(model.anatomy)},
        **{
            kind: f"largest relative error {error:.1e} (layer {layer})"
            for kind, (error, layer) in errors.items()
        },
        "largest error": f"{worst:.1e} on {ids.shape[1]} tokens in {model.dtype}",
    }
