"""How likely a model finds continuations of prompts; a prompt runs once for all of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from affectlens.core.errors import DataError
from affectlens.models.anatomy.padding import Padding
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

_LOGIT_ROWS = 1024


@torch.inference_mode()
def continuation_nll(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    max_tokens_per_batch: int = 4096,
    advance: Callable[[int], None] = lambda _n: None,
) -> Float[np.ndarray, " n"]:
    """Mean negative log-likelihood per token of each continuation, in nats.

    ``nll[i] = -1/T Σ_t log p(reply[t] | prompt, reply[<t])``, hooks and all: what changes the model
    counts. Rows are sorted and equal prompts run once, so a hook cannot tell which row is whose.

    Args:
        model: The model.
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
            result[batch] = _continued(model, prompt, [replies[i] for i in batch]).numpy()
            advance(len(batch))
    for batch in cut(shortest_first(lengths, alone), lengths, limits):
        whole = whole_nll(model, [prompts[i] for i in batch], [replies[i] for i in batch])
        result[batch] = whole.numpy()
        advance(len(batch))
    return result


def whole_nll(
    model: LanguageModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> Float[torch.Tensor, " row"]:
    """Mean nats per token of each reply in one batch, each row from its first prompt token on.

    Gradients flow through it. Rows of different lengths are padded on the right: ask
    ``model.padding`` first whether the model bears that.

    Returns:
        Float32, on the CPU.
    """
    ids, mask = model.encode_batch(
        [[*p, *r] for p, r in zip(prompts, replies, strict=True)], side="right"
    )
    base = model.anatomy.base
    places = accepted(base, position_ids=model.position_ids(mask))
    hidden = base(input_ids=ids, attention_mask=mask, **places).last_hidden_state
    return reply_nll(model, hidden, replies, [len(p) - 1 for p in prompts])


def _continued(
    model: LanguageModel, prompt: Sequence[int], replies: Sequence[Sequence[int]]
) -> Float[torch.Tensor, " row"]:
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
    return reply_nll(model, hidden, replies, [0] * len(replies))


def reply_nll(
    model: LanguageModel,
    hidden: Float[torch.Tensor, "row pos d_model"],
    replies: Sequence[Sequence[int]],
    first: Sequence[int],
) -> Float[torch.Tensor, " row"]:
    """Mean nats per token; ``first`` says at which position each reply's first token is told.

    Logits are made at positions of replies alone: with 49k-200k words the rest would dwarf the
    model.
    """
    where = [(row, first[row] + t) for row, reply in enumerate(replies) for t in range(len(reply))]
    at = torch.tensor(where, device=hidden.device)
    target = torch.tensor([token for reply in replies for token in reply], device=hidden.device)
    each: list[torch.Tensor] = []
    for part, told in zip(at.split(_LOGIT_ROWS), target.split(_LOGIT_ROWS), strict=True):
        logits = model.logits(hidden[part[:, 0], part[:, 1]]).float()
        told = told.to(logits.device)  # the unembedding may be on another device than the blocks
        each.append(torch.nn.functional.cross_entropy(logits, told, reduction="none").cpu())
    nll = torch.cat(each)
    return torch.stack([part.mean() for part in nll.split([len(reply) for reply in replies])])
