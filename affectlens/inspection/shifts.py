"""What steering changed in the choice of one token: how much, and which words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Word:
    """A token of the vocabulary and its probability as the next one.

    Attributes:
        id: Its number.
        text: As text.
        unsteered, steered: Without and with the steering.
    """

    id: int
    text: str
    unsteered: float
    steered: float


@dataclass(frozen=True)
class Shift:
    """The next-token distribution with steering against that without, after the same text.

    Attributes:
        kl: ``KL(steered ‖ unsteered)``, in nats, at temperature 1 and without penalties.
        promoted: The words that gained most probability, the largest gain first.
        suppressed: Those that lost most.
        chosen: The token that stands there, if it is known.
    """

    kl: float
    promoted: tuple[Word, ...]
    suppressed: tuple[Word, ...]
    chosen: Word | None


def shift_of(
    steered: Float[Tensor, " vocab"],
    unsteered: Float[Tensor, " vocab"],
    text_of: Callable[[int], str],
    *,
    chosen: int | None = None,
    top: int = 8,
) -> Shift:
    """Compare two distributions over the vocabulary.

    Args:
        steered, unsteered: Log-probabilities.
        text_of: Gives a token's text.
        chosen: The token that was chosen.
        top: Most words of each list; words that did not gain (or lose) are in neither.
    """
    before, after = unsteered.exp(), steered.exp()

    def word(token: int) -> Word:
        return Word(token, text_of(token), float(before[token]), float(after[token]))

    def ranked(gain: Tensor) -> tuple[Word, ...]:
        values, ids = gain.topk(min(top, len(gain)))
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return tuple(word(token) for value, token in pairs if value > 0)

    return Shift(
        float(kl_of(steered, unsteered)),
        ranked(after - before),
        ranked(before - after),
        None if chosen is None else word(chosen),
    )


def kl_of(
    steered: Float[Tensor, "*token vocab"], unsteered: Float[Tensor, "*token vocab"]
) -> Float[Tensor, " *token"]:
    """``Σ p (log p - log q)`` of log-probabilities, in nats; rounding never makes it negative."""
    terms = torch.where(steered.isneginf(), 0.0, steered.exp() * (steered - unsteered))
    return terms.sum(-1).clamp_min(0.0)
