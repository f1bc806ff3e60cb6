"""Perplexity of replies under the unsteered model, given their prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from affectlens.core import DataError

if TYPE_CHECKING:
    from affectlens.models import LanguageModel


@torch.inference_mode()
def reply_nll(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    max_tokens_per_batch: int = 4096,
    advance: Callable[[int], None] = lambda _n: None,
) -> Float[np.ndarray, " n"]:
    """Mean negative log-likelihood per reply token, in nats.

    ``nll[i] = -1/T Σ_t log p(reply[t] | prompt, reply[<t])`` under the model as it is, without any
    steering, on the exact token ids that were generated (no decoding and encoding in between).

    Args:
        model: The unsteered model.
        prompts: Token ids of each prompt, generation prompt included.
        replies: Token ids of each reply; an empty reply gets NaN.
        max_tokens_per_batch: Upper bound on padded tokens per forward pass.
        advance: Called with the number of replies done.

    Raises:
        DataError: If the numbers of prompts and replies differ.
    """
    if len(prompts) != len(replies):
        raise DataError(f"There are {len(prompts)} prompts but {len(replies)} replies.")
    result = np.full(len(prompts), np.nan)
    todo = [i for i, reply in enumerate(replies) if len(reply) > 0]
    todo.sort(key=lambda i: len(prompts[i]) + len(replies[i]))
    for batch in _batches(
        todo, [len(p) + len(r) for p, r in zip(prompts, replies, strict=True)], max_tokens_per_batch
    ):
        rows = [[*prompts[i], *replies[i]] for i in batch]
        ids, mask = model.encode_batch(rows, side="right")
        hidden = model.anatomy.base(
            input_ids=ids, attention_mask=mask, position_ids=model.position_ids(mask)
        ).last_hidden_state
        # Logits of reply positions alone: with 49k-200k words the rest would dwarf the model.
        where = [
            (row, len(prompts[i]) - 1 + t)
            for row, i in enumerate(batch)
            for t in range(len(replies[i]))
        ]
        at = torch.tensor(where, device=ids.device)
        nll = torch.empty(len(where))
        for start in range(0, len(where), 1024):
            part = at[start : start + 1024]
            logits = model.logits(hidden[part[:, 0], part[:, 1]]).float()
            target = ids[part[:, 0], part[:, 1] + 1]
            nll[start : start + 1024] = torch.nn.functional.cross_entropy(
                logits, target, reduction="none"
            ).cpu()
        offset = 0
        for i in batch:
            n = len(replies[i])
            result[i] = float(nll[offset : offset + n].mean())
            offset += n
        advance(len(batch))
    return result


def _batches(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows, ascending in length, into batches of at most ``budget`` padded tokens."""
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[i] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def perplexity_ratio(
    nll: Float[np.ndarray, " n"],
    tokens: Sequence[int],
    reference_nll: Float[np.ndarray, " m"],
    reference_tokens: Sequence[int],
) -> float:
    """Perplexity pooled over tokens, relative to that of reference text.

    ``exp(Σ nll·T / Σ T)`` of the arm divided by the same of the unsteered replies; empty replies
    carry no tokens and drop out.
    """

    def pooled(values: Float[np.ndarray, " k"], counts: Sequence[int]) -> float:
        weights = np.where(np.isnan(values), 0, np.asarray(counts, dtype=np.float64))
        if weights.sum() == 0:
            raise DataError("All replies are empty, so they have no perplexity.")
        return float((np.nan_to_num(values) * weights).sum() / weights.sum())

    return float(np.exp(pooled(nll, tokens) - pooled(reference_nll, reference_tokens)))
