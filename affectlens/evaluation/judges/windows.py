"""How a text of any length is read: in windows, each judged alone, the verdicts pooled.

A text is cut into the fewest windows that hold it, of nearly equal length, so nothing is left out
and nothing depends on the other texts of a batch. A window's logits are the head on the mean of its
last hidden states. The text's distribution is the mean of its windows' distributions, each weighted
by ``tokens * (floor + 1 - p(neutral)) ** sharpness``: a window that shows nothing says little about
the others, so plain sentences in front of an outburst do not make it plain. One window's verdict is
its own. Training reads in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core import NEUTRAL


@dataclass(frozen=True)
class Reading:
    """Settings of reading, chosen on composed texts of the groups of role ``tune``.

    Attributes:
        window: Most tokens read at once, the encoder's two marks included.
        floor: Keeps the weight of a wholly neutral window above 0.
        sharpness: How much less a neutral window weighs than an emotional one.
    """

    window: int = 64
    floor: float = 0.05
    sharpness: float = 2.0


@dataclass(frozen=True)
class Windows:
    """The windows of ``n`` texts.

    Attributes:
        ids: Token ids of each window, with the encoder's marks around them.
        owner: Index of the text that each window belongs to.
        n_texts: How many texts there are; each has at least one window.
    """

    ids: Sequence[Sequence[int]]
    owner: Int[Tensor, " w"]
    n_texts: int

    @property
    def tokens(self) -> Int[Tensor, " w"]:
        """Length of each window, the marks left out; an empty text counts as one token."""
        return torch.tensor([max(1, len(ids) - 2) for ids in self.ids], dtype=torch.long)


def windows_of(tokenizer: Any, texts: Sequence[str], window: int) -> Windows:
    """Cut every text into windows.

    Args:
        tokenizer: Of the encoder; it puts one mark before and one after a text.
        texts: Any number, of any length.
        window: Most tokens of a window, the two marks included.
    """
    ids: list[list[int]] = []
    owner: list[int] = []
    marks = tokenizer.cls_token_id, tokenizer.sep_token_id
    for index, text in enumerate(texts):
        content = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        parts = max(1, -(-len(content) // (window - 2)))
        bounds = [len(content) * part // parts for part in range(parts + 1)]
        for start, end in pairwise(bounds):
            ids.append([marks[0], *content[start:end], marks[1]])
            owner.append(index)
    return Windows(ids, torch.tensor(owner, dtype=torch.long), len(texts))


def mean_pooled(
    hidden: Float[Tensor, "b t d"], mask: Float[Tensor, "b t"] | Tensor
) -> Float[Tensor, "b d"]:
    """Mean over the tokens that are not padding."""
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def encode(encoder: Any, tokenizer: Any, ids: Sequence[Sequence[int]]) -> Float[Tensor, "b d"]:
    """Mean last hidden state of each window, in fp32."""
    batch = tokenizer.pad({"input_ids": [list(row) for row in ids]}, return_tensors="pt")
    hidden = encoder(**batch.to(encoder.device)).last_hidden_state
    return mean_pooled(hidden.float(), batch["attention_mask"])


def pooled_log_probabilities(
    logits: Float[Tensor, "w k"], windows: Windows, labels: Sequence[str], how: Reading
) -> Float[Tensor, "n k"]:
    """Log-distribution of each text from the logits of its windows (see the module's head).

    Args:
        logits: One row per window.
        windows: Whose they are.
        labels: Names of the columns; without a neutral one the weights are the tokens alone.
        how: See `Reading`.
    """
    each = logits.log_softmax(-1)
    said = 1 - each[:, labels.index(NEUTRAL)].exp() if NEUTRAL in labels else torch.ones(len(each))
    weights = windows.tokens.to(each) * (how.floor + said) ** how.sharpness
    total = each.new_zeros(windows.n_texts).index_add(0, windows.owner, weights)
    log_share = (weights / total[windows.owner]).log()[:, None]
    rows = each + log_share
    # A log-sum-exp per text; the highest row of each text is taken out first, for precision.
    index = windows.owner[:, None].expand_as(rows)
    top = rows.new_full((windows.n_texts, rows.shape[1]), -torch.inf).scatter_reduce(
        0, index, rows.detach(), "amax"
    )
    summed = torch.zeros_like(top).index_add(0, windows.owner, (rows - top[windows.owner]).exp())
    return top + summed.log()
