"""Which tokens are steered, by absolute position against the length of the prompt.

Every choice is an interval ``[start, stop)`` of positions in a row's own text, so it means the same
in one pass, in chunks, with a cache and with padding on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from affectlens.core.errors import unknown
from affectlens.steering.spec import POSITIONS

FOREVER = 2**31 - 1
PADDING = -1
"""Position of tokens that only fill up a row; never steered."""


def interval(positions: str, prompt_length: int) -> tuple[int, int]:
    """First and one past the last absolute position that is steered.

    Args:
        positions: One of `POSITIONS`.
        prompt_length: Tokens of the prompt, at least 1.

    Raises:
        UnknownNameError: If there is no such choice.
    """
    match positions:
        case "generated":
            return prompt_length, FOREVER
        case "last_prompt+generated":
            return prompt_length - 1, FOREVER
        case "prompt":
            return 0, prompt_length
        case "all":
            return 0, FOREVER
        case _:
            raise unknown("positions", positions, POSITIONS)


def intervals(
    positions: Sequence[str], prompt_lengths: Sequence[int], device: torch.device | str = "cpu"
) -> Int[Tensor, "batch 2"]:
    """`interval` of every row."""
    pairs = [interval(p, n) for p, n in zip(positions, prompt_lengths, strict=True)]
    return torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2)


def absolute_positions(attention_mask: Int[Tensor, "batch total"], columns: int) -> Tensor:
    """Positions of the last columns, counted over real tokens only; padding is `PADDING`.

    Args:
        attention_mask: Of everything seen so far, cached tokens included; non-zero is real.
        columns: How many tokens per row this forward pass holds.

    Returns:
        ``[batch, columns]``.
    """
    real = attention_mask != 0
    positions = (real.long().cumsum(-1) - 1).masked_fill(~real, PADDING)
    return positions[:, -columns:]


def inside(
    positions: Int[Tensor, "batch pos"], bounds: Int[Tensor, "batch 2"]
) -> Bool[Tensor, "batch pos"]:
    """Which tokens of a forward pass are steered.

    Args:
        positions: Absolute, `PADDING` for padding.
        bounds: Of `intervals`.
    """
    start, stop = bounds[:, :1], bounds[:, 1:]
    return (positions >= start.clamp_min(0)) & (positions < stop)
