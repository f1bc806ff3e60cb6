"""How far steering moves the next token: nats per token from the unsteered distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError
from affectlens.models.anatomy.padding import Padding
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.steering import SteeringPack


@torch.inference_mode()
def kl_to_unsteered(
    model: LanguageModel,
    pack: SteeringPack,
    specs: Sequence[Any],
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    max_tokens_per_batch: int = 1024,
    advance: Callable[[int], object] = lambda _n: None,
) -> Float[np.ndarray, " row"]:
    """Mean over the tokens of a reply of ``KL(steered || unsteered)``, in nats.

    Both see the same tokens: a reply that the unsteered model wrote, so that texts which drift
    apart are not what is compared.

    Args:
        model: The model, not being steered.
        pack: The vectors.
        specs: What steers each row.
        prompts: Token ids of each row, up to where the reply starts.
        replies: Token ids of unsteered replies; an empty one gets NaN.
        max_tokens_per_batch: Upper bound on padded tokens of a pass.
        advance: Told about every row done.

    Raises:
        DataError: If the numbers of specs, prompts and replies differ, or the model is being
            steered.
    """
    if not len(specs) == len(prompts) == len(replies):
        raise DataError(
            f"There are {len(specs)} requests, {len(prompts)} prompts and {len(replies)} replies."
        )
    refuse_listeners(model.hf, "The unsteered distribution")
    result = np.full(len(replies), np.nan)
    lengths = [len(p) + len(r) for p, r in zip(prompts, replies, strict=True)]
    some = [i for i, reply in enumerate(replies) if len(reply)]
    padding = model.padding.upto(max(lengths)) if len(some) > 1 else Padding()
    limits = BatchLimits(max_tokens_per_batch, mixed=padding.right)
    for batch in cut(shortest_first(lengths, some), lengths, limits):
        asked = [prompts[i] for i in batch]
        said = [replies[i] for i in batch]
        plain = _log_probabilities(model, asked, said)
        ends = [len(prompt) for prompt in asked]
        with pack.steer(model, [specs[i] for i in batch], prompt_lengths=ends):
            steered = _log_probabilities(model, asked, said)
        each = (steered.exp() * (steered - plain)).sum(-1)
        parts = each.split([len(reply) for reply in said])
        result[batch] = [float(part.mean()) for part in parts]
        advance(len(batch))
    return result


def _log_probabilities(
    model: LanguageModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> Float[Tensor, "token vocab"]:
    """Of the next token wherever one of a reply is told, replies one after the other; float32."""
    ids, mask = model.encode_batch(
        [[*p, *r] for p, r in zip(prompts, replies, strict=True)], side="right"
    )
    base = model.anatomy.base
    places = accepted(base, position_ids=model.position_ids(mask))
    hidden = base(input_ids=ids, attention_mask=mask, **places).last_hidden_state
    at = torch.tensor(
        [
            (row, len(p) - 1 + t)
            for row, (p, r) in enumerate(zip(prompts, replies, strict=True))
            for t in range(len(r))
        ],
        device=hidden.device,
    )
    return model.logits(hidden[at[:, 0], at[:, 1]]).float().log_softmax(-1)
