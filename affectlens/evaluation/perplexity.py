"""Perplexity of replies under the unsteered model, given their prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from affectlens.core import DataError
from affectlens.models.generation.likelihood import continuation_nll
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.evaluation.reply import Reply
    from affectlens.models import LanguageModel


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
        DataError: If the numbers of prompts and replies differ, or the model is being steered.
    """
    refuse_listeners(model.hf, "The likelihood of replies")
    return continuation_nll(
        model, prompts, replies, max_tokens_per_batch=max_tokens_per_batch, advance=advance
    )


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


def ratio_of_replies(replies: Sequence[Reply], unsteered: Sequence[Reply]) -> float:
    """`perplexity_ratio` of some replies to unsteered ones; infinite if all are empty."""
    if not any(reply.tokens for reply in replies):
        return float("inf")
    nll, tokens = np.array([r.nll for r in replies]), [r.tokens for r in replies]
    base, count = np.array([r.nll for r in unsteered]), [r.tokens for r in unsteered]
    return perplexity_ratio(nll, tokens, base, count)


def pooled_nll(nll: Float[np.ndarray, " n"], tokens: Sequence[int]) -> float:
    """Mean nats per token over all replies together: ``Σ nll·T / Σ T``; empty ones drop out.

    Raises:
        DataError: If all are empty.
    """
    weights = np.where(np.isnan(nll), 0, np.asarray(tokens, dtype=np.float64))
    if weights.sum() == 0:
        raise DataError("All replies are empty, so they have no perplexity.")
    return float((np.nan_to_num(nll) * weights).sum() / weights.sum())
