"""What a sender writes, in tokens: those that its mean output makes likelier, and those it makes
less likely, read off the unembedding as if nothing came after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from affectlens.circuits.attribution.unit_maps import head_map
from affectlens.core.errors import ModelError
from affectlens.models.anatomy.transformer_lens import unwrap

if TYPE_CHECKING:
    from affectlens.circuits.attribution.edge_scores import Sender
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.models.loading import LanguageModel


@torch.no_grad()
def written_tokens(
    model: LanguageModel, means: UnitMeans, senders: Sequence[Sender], *, top: int = 6
) -> dict[str, str]:
    """Promoted and suppressed tokens of every sender but the embedding, by its name.

    A head's or MLP's mean output goes through the unembedding alone, without the final norm's
    scale, which changes no order; its weight counts.

    Raises:
        ModelError: If the model has no unembedding.
    """
    if model.anatomy.unembed is None:
        raise ModelError(f"{model.name} has no unembedding, so it writes no tokens.")
    gain = getattr(model.anatomy.final_norm, "weight", None)
    heads, out = means.mean("heads").mean(0), means.mean("out").mean(0)
    found: dict[str, str] = {}
    for sender in senders:
        if sender.part == "embedding":
            continue
        written = out[sender.layer, int(sender.part == "mlp")]
        if sender.part == "head":
            part = model.anatomy.blocks[sender.layer]
            projection = head_map(part, model.anatomy.n_heads, model.anatomy.d_head)
            assert projection is not None  # it has heads
            own = torch.zeros_like(heads[sender.layer]).unflatten(0, (model.anatomy.n_heads, -1))
            own[sender.index] = heads[sender.layer].unflatten(0, own.shape[:2])[sender.index]
            written = projection.written(own.flatten()[None])[0]
        written = written.to(model.device)
        if gain is not None and gain.shape == written.shape:
            # Gemma's norms multiply by one more than their weight.
            more = 1.0 if "Gemma" in type(unwrap(model.anatomy.final_norm)).__name__ else 0.0
            written = written * (more + gain.float())
        logits = model.logits(written.to(model.dtype)[None, None])[0, 0].float()
        up, down = (logits.topk(top, largest=way).indices.tolist() for way in (True, False))
        found[sender.name] = f"promotes {_said(model, up)}; suppresses {_said(model, down)}"
    return found


def _said(model: LanguageModel, tokens: Sequence[int]) -> str:
    return ", ".join(repr(model.tokenizer.decode([token])) for token in tokens)
