"""Perplexity of replies under the unsteered model, given their prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from affectlens.core import DataError
from affectlens.models.anatomy.padding import Padding
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models import LanguageModel

_LOGIT_ROWS = 1024


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
    A prompt with several replies is run once for all of them.

    Args:
        model: The unsteered model.
        prompts: Token ids of each prompt, generation prompt included.
        replies: Token ids of each reply; an empty reply gets NaN.
        max_tokens_per_batch: Upper bound on padded tokens per forward pass.
        advance: Called with the number of replies done.

    Raises:
        DataError: If the numbers of prompts and replies differ.
    """
    refuse_listeners(model.hf, "The likelihood of replies")
    if len(prompts) != len(replies):
        raise DataError(f"There are {len(prompts)} prompts but {len(replies)} replies.")
    result = np.full(len(prompts), np.nan)
    lengths = [len(p) + len(r) for p, r in zip(prompts, replies, strict=True)]
    padding = model.padding.upto(max(lengths)) if len(lengths) > 1 else Padding()
    of_prompt: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    limits = BatchLimits(max_tokens_per_batch, mixed=padding.right)
    for i in shortest_first(lengths, (i for i, r in enumerate(replies) if len(r))):
        of_prompt[tuple(prompts[i])].append(i)
    alone: list[int] = []
    for prompt, rows in of_prompt.items():
        if len(rows) == 1 or len(prompt) == 1 or not padding.chunks:
            alone += rows
            continue
        for batch in cut(rows, lengths, limits):
            result[batch] = _continued(model, prompt, [replies[i] for i in batch])
            advance(len(batch))
    for batch in cut(shortest_first(lengths, alone), lengths, limits):
        result[batch] = _whole(model, [prompts[i] for i in batch], [replies[i] for i in batch])
        advance(len(batch))
    return result


def _whole(
    model: LanguageModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[float]:
    """Mean nats per token of each reply, each row from its first prompt token on."""
    ids, mask = model.encode_batch(
        [[*p, *r] for p, r in zip(prompts, replies, strict=True)], side="right"
    )
    base = model.anatomy.base
    places = accepted(base, position_ids=model.position_ids(mask))
    hidden = base(input_ids=ids, attention_mask=mask, **places).last_hidden_state
    return _mean_nll(model, hidden, replies, [len(p) - 1 for p in prompts])


def _continued(
    model: LanguageModel, prompt: Sequence[int], replies: Sequence[Sequence[int]]
) -> list[float]:
    """The same for replies to one prompt of two tokens or more, run once up to its last token."""
    ids, _ = model.encode_batch([prompt])
    base = model.anatomy.base
    cache = base(input_ids=ids[:, :-1], use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(replies))
    tail, mask = model.encode_batch([[prompt[-1], *reply] for reply in replies], side="right")
    before = mask.new_ones(len(replies), len(prompt) - 1)
    full = torch.cat([before, mask], dim=1)
    hidden = base(
        input_ids=tail,
        attention_mask=full,
        past_key_values=cache,
        use_cache=True,
        **accepted(base, position_ids=model.position_ids(full)[:, len(prompt) - 1 :]),
    ).last_hidden_state
    return _mean_nll(model, hidden, replies, [0] * len(replies))


def _mean_nll(
    model: LanguageModel,
    hidden: Float[torch.Tensor, "row pos d_model"],
    replies: Sequence[Sequence[int]],
    first: Sequence[int],
) -> list[float]:
    """Mean nats per token; ``first`` says at which position each reply's first token is told.

    Logits are made at positions of replies alone: with 49k-200k words the rest would dwarf the
    model.
    """
    where = [(row, first[row] + t) for row, reply in enumerate(replies) for t in range(len(reply))]
    at = torch.tensor(where, device=hidden.device)
    target = torch.tensor([token for reply in replies for token in reply], device=hidden.device)
    nll = torch.cat(
        [
            torch.nn.functional.cross_entropy(
                model.logits(hidden[part[:, 0], part[:, 1]]).float(), told, reduction="none"
            ).cpu()
            for part, told in zip(at.split(_LOGIT_ROWS), target.split(_LOGIT_ROWS), strict=True)
        ]
    )
    return [float(part.mean()) for part in nll.split([len(reply) for reply in replies])]


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

    arm, reference = pooled_nll(nll, tokens), pooled_nll(reference_nll, reference_tokens)
    return float(np.exp(arm - reference))


def pooled_nll(nll: Float[np.ndarray, " n"], tokens: Sequence[int]) -> float:
    """Mean nats per token over all replies together: ``Σ nll·T / Σ T``; empty ones drop out.

    Raises:
        DataError: If all are empty.
    """
    weights = np.where(np.isnan(nll), 0, np.asarray(tokens, dtype=np.float64))
    if weights.sum() == 0:
        raise DataError("All replies are empty, so they have no perplexity.")
    return float((np.nan_to_num(nll) * weights).sum() / weights.sum())
