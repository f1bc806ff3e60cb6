"""How likely a model finds replies while it is changed from the last prompt token on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from affectlens.core import ModelError, WritePoint
from affectlens.steering.refine.replies import Group

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

Additions = Mapping[WritePoint, Float[Tensor, "emotion d_model"]]
"""What is added at each place for each emotion, at strength 1."""

Changes = Mapping[
    WritePoint,
    Callable[[Float[Tensor, "row pos d_model"], Int[Tensor, " row"]], Float[Tensor, "row pos d"]],
]
"""What becomes of the values at each place; the second argument is where each row stands in its
group."""


def reply_log_probabilities(
    model: LanguageModel, groups: Sequence[Group], changes: Changes, max_tokens: int
) -> tuple[Float[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Log-probability of every token of every reply, and which of them there are.

    Changes act from the last prompt token on, as steering does in generation, so what lies before
    it is run once per group and shared by its members. Prompts of different lengths run together
    where the model bears the padding.

    Args:
        model: The model.
        groups: Of equally many members, each a prompt and its replies. Rows are in their order.
        changes: Differentiable; none for the model as it is.
        max_tokens: Replies are cut to so many.

    Returns:
        Zero where a reply has no token.

    Raises:
        ModelError: If the model computes something else in several calls with a cache.
    """
    rows = [model.encode_chat(r.chat, add_generation_prompt=False) for g in groups for r in g]
    k = len(groups[0])
    starts = [row.spans["reply"][0] for row in rows]
    replies = [row.ids[row.spans["reply"][0] : row.spans["reply"][1]][:max_tokens] for row in rows]
    prompts = [rows[i].ids[: starts[i]] for i in range(0, len(rows), k)]
    padding = model.padding.upto(max(map(len, prompts)) + max(map(len, replies)))
    if not padding.chunks:
        raise ModelError(
            f"{model.name} computes something else in several calls with a cache than in one, so "
            "its vectors cannot be refined; use those of the directions or the circuit."
        )
    alike: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault(0 if padding.left else len(prompt), []).append(i)
    width = max(map(len, replies))
    order, parts = list[int](), list[tuple[Tensor, Tensor]]()
    for each in alike.values():
        mine = [i * k + j for i in each for j in range(k)]
        said, keep = _together(
            model, [prompts[i] for i in each], [replies[i] for i in mine], changes
        )
        more = (0, width - keep.shape[1])
        parts.append((F.pad(said, more), F.pad(keep, more)))
        order += mine
    back = torch.tensor(order).argsort()
    said, keep = (torch.cat([part[n] for part in parts]) for n in (0, 1))
    return said[back.to(said.device)], keep[back.to(keep.device)]


def _together(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    changes: Changes,
) -> tuple[Float[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    from affectlens.models.hooking.hooks import writing
    from affectlens.models.step import accepted

    base, k = model.anatomy.base, len(replies) // len(prompts)
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
    member = torch.arange(k, device=ids.device).repeat(len(prompts))

    def changed(
        change: Callable[[Tensor, Tensor], Tensor],
    ) -> Callable[[Tensor], Tensor]:
        return lambda hidden: change(hidden, member.to(hidden.device))

    with (
        torch.enable_grad(),
        writing(model.anatomy, {at: changed(change) for at, change in changes.items()}),
    ):
        hidden = base(
            input_ids=inputs,
            attention_mask=full_mask,
            past_key_values=cache,
            use_cache=True,
            **accepted(base, position_ids=positions),
        ).last_hidden_state
    keep = tail_mask.bool()
    logits = model.logits(hidden[:, :-1][keep.to(hidden.device)]).float().to(tail.device)
    said = logits.new_zeros(keep.shape)
    said[keep] = -F.cross_entropy(logits, tail[keep], reduction="none")
    return said, keep


def added(
    vectors: Float[Tensor, "emotion d_model"], strength: Float[Tensor, " member"] | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Add each row its emotion's vector; members beyond the emotions begin with them again."""

    def change(hidden: Tensor, member: Tensor) -> Tensor:
        chosen = vectors.to(hidden.device)[member % len(vectors)]
        if strength is not None:
            chosen = chosen * strength.to(hidden.device)[member, None]
        return hidden + chosen[:, None].to(hidden.dtype)

    return change


def mapped(
    constants: Float[Tensor, "emotion d_model"],
    reads: Float[Tensor, "emotion rank d_model"],
    writes: Float[Tensor, "emotion rank d_model"],
) -> Callable[[Tensor, Tensor], Tensor]:
    """Add to each row its emotion's constant and what its map makes of the hidden state."""

    def change(hidden: Tensor, member: Tensor) -> Tensor:
        constant, read, write = (
            x.to(hidden.device)[member % len(constants)] for x in (constants, reads, writes)
        )
        found = torch.einsum("bpd,brd->bpr", hidden.float(), read)
        more = constant[:, None] + torch.einsum("bpr,brd->bpd", found, write)
        return hidden + more.to(hidden.dtype)

    return change
