"""How unlikely a model finds emotional replies while it is steered towards them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from affectlens.core import ModelError, WritePoint
from affectlens.steering.refine.replies import Group
from affectlens.steering.refine.settings import RefineSettings

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

Additions = Mapping[WritePoint, Float[Tensor, "emotion d_model"]]


def reply_loss(
    model: LanguageModel,
    groups: Sequence[Group],
    emotions: Sequence[str],
    added: Additions,
    settings: RefineSettings,
) -> Float[Tensor, ""]:
    """Weighted negative log-likelihood of each emotion's reply while that emotion is steered.

    Steering acts from the last prompt token on, as in generation, so what lies before it is run
    once per group and shared by the emotions. Prompts of different lengths run together where the
    model bears the padding.

    Raises:
        ModelError: If the model computes something else in several calls with a cache.
    """
    from affectlens.models.hooking.hooks import writing
    from affectlens.models.step import accepted

    rows = [model.encode_chat(r.chat, add_generation_prompt=False) for g in groups for r in g]
    k = len(emotions)
    starts = [row.spans["reply"][0] for row in rows]
    replies = [
        row.ids[row.spans["reply"][0] : row.spans["reply"][1]][: settings.max_reply_tokens]
        for row in rows
    ]
    prompts = [rows[i].ids[: starts[i]] for i in range(0, len(rows), k)]
    alike: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault(len(prompt), []).append(i)
    padding = model.padding.upto(max(map(len, prompts)) + max(map(len, replies)))
    if not padding.chunks:
        raise ModelError(
            f"{model.name} computes something else in several calls with a cache than in one, so "
            "its vectors cannot be refined; use those of the directions or the circuit."
        )
    if len(alike) > 1 and not padding.left:
        parts = [
            (
                reply_loss(model, [groups[i] for i in each], emotions, added, settings),
                sum(len(replies[i * k + j]) for i in each for j in range(k)),
            )
            for each in alike.values()
        ]
        return torch.stack([loss * n for loss, n in parts]).sum() / sum(n for _, n in parts)
    base = model.anatomy.base
    ids, mask = model.encode_batch(prompts, side="left")
    with torch.no_grad():
        cache = base(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            use_cache=True,
            **accepted(base, position_ids=model.position_ids(mask[:, :-1])),
        ).past_key_values
        cache.batch_repeat_interleave(k)
    tail, tail_mask = model.encode_batch(replies, side="right")
    full_mask = torch.cat([mask.repeat_interleave(k, 0), tail_mask], dim=1)
    inputs = torch.cat([ids[:, -1:].repeat_interleave(k, 0), tail], dim=1)
    positions = model.position_ids(full_mask)[:, ids.shape[1] - 1 :]
    which = torch.arange(k, device=ids.device).repeat(len(groups))

    def adder(vectors: Float[Tensor, "emotion d_model"]) -> Callable[[Tensor], Tensor]:
        chosen = vectors[which.to(vectors.device)][:, None]
        return lambda hidden: hidden + chosen.to(hidden.device, hidden.dtype)

    with torch.enable_grad(), writing(model.anatomy, {w: adder(v) for w, v in added.items()}):
        hidden = base(
            input_ids=inputs,
            attention_mask=full_mask,
            past_key_values=cache,
            use_cache=True,
            **accepted(base, position_ids=positions),
        ).last_hidden_state
    keep = tail_mask.bool()
    logits = model.logits(hidden[:, :-1][keep.to(hidden.device)]).float()
    return _weighted_nll(logits.to(tail.device), tail, keep, settings)


def _weighted_nll(
    logits: Float[Tensor, "token vocab"],
    tail: Int[Tensor, "row pos"],
    keep: Bool[Tensor, "row pos"],
    settings: RefineSettings,
) -> Float[Tensor, ""]:
    when = torch.arange(tail.shape[1], device=tail.device, dtype=torch.float32)
    weight = (1 + settings.first_weight * torch.exp(-when / settings.tau)).expand(keep.shape)[keep]
    return (weight * F.cross_entropy(logits, tail[keep], reduction="none")).mean()
