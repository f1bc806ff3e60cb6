"""A circuit as what it does to the residual stream after each block, for tools that only add there.

In one pass half of the rows run with the circuit, half without. After each block the mean
difference between the halves over all tokens, ``r_L = mean(h_L^circuit - h_L^equivalent)``, is
added to the rows without, so that both go on from the same mean. What a circuit adds at the end of
a block is found exactly, and so is the constant part of whatever the rest of the block, or a norm
behind the sublayer, makes of it. What depends on the token is lost; `Fit` measures that on texts of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core import DataError
from affectlens.core.places import WritePoint

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec

TEXTS = 32
"""Situations that are read: one half to find the vectors, the other to measure their error."""


@dataclass(frozen=True)
class Fit:
    """How near the equivalent comes to the circuit, on texts that did not make it.

    Attributes:
        error: Length of the difference of their effects on the logits, over that of the circuit's
            effect; 0 is the same, 1 as far off as not steering at all.
        correlation: Of the effects, over tokens and vocabulary.
        size: Length of the equivalent's effect over the circuit's.
        same_token: Share of tokens whose likeliest successor is the same under both.
        tokens: How many were looked at.
    """

    error: float
    correlation: float
    size: float
    same_token: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"effect on logits off by {self.error:.2f} of its length (correlation "
            f"{self.correlation:.3f}, size {self.size:.2f}); the likeliest next token is the same "
            f"at {self.same_token:.0%} of {self.tokens} tokens"
        )


def compare_effects(
    plain: Float[Tensor, "*token vocab"],
    theirs: Float[Tensor, "*token vocab"],
    ours: Float[Tensor, "*token vocab"],
) -> Fit:
    """How near one effect on logits comes to another.

    Args:
        plain: Logits without steering.
        theirs: With what is to be matched.
        ours: With what is to match it.

    Raises:
        DataError: If what is to be matched changes nothing.
    """
    plain, theirs, ours = (x.double().flatten(0, -2) for x in (plain, theirs, ours))
    wanted, found = theirs - plain, ours - plain
    if not bool(wanted.any()):
        raise DataError("This request changes no logit, so there is nothing to compare with.")
    both = torch.stack([wanted.flatten(), found.flatten()])
    return Fit(
        error=float((found - wanted).norm() / wanted.norm()),
        correlation=float(torch.corrcoef(both)[0, 1]),
        size=float(found.norm() / wanted.norm()),
        same_token=float((theirs.argmax(-1) == ours.argmax(-1)).double().mean()),
        tokens=len(wanted),
    )


@torch.no_grad()
def residual_equivalent(
    model: LanguageModel,
    pack: SteeringPack,
    spec: SteeringSpec,
    blocks: Sequence[int],
    ids: Int[Tensor, "text pos"] | None = None,
) -> tuple[Mapping[int, Float[Tensor, " d_model"]], Fit]:
    """A vector after each of some blocks that does what a request does, and how well.

    Args:
        model: The pack's.
        pack: Of the request.
        spec: Of `SteeringPack.resolve`; it is applied to every token.
        blocks: After which to add.
        ids: Texts, as many for the vectors as for the error, without padding; default: the first
            tokens of authored situations, in the chat template.

    Raises:
        DataError: If the request changes nothing.
    """
    everywhere = spec.changed(pack.emotions, positions="all")
    ids = (situations(model) if ids is None else ids).to(model.device)
    half = len(ids) // 2
    found = _matched(model, pack, everywhere, blocks, ids[:half])
    rest = ids[half:]
    plain = model.hf(input_ids=rest, use_cache=False).logits
    with pack.steer(model, everywhere):
        theirs = model.hf(input_ids=rest, use_cache=False).logits
    with _adding(model, found):
        ours = model.hf(input_ids=rest, use_cache=False).logits
    return found, compare_effects(plain, theirs, ours)


def situations(model: LanguageModel) -> Int[Tensor, "text pos"]:
    """The first tokens of authored situations as a user would tell them, all of one length."""
    from affectlens.datasets import load
    from affectlens.models.generation.generation import encode_prompt

    texts = list(dict.fromkeys(record.text for record in load("vignettes")))[:TEXTS]
    rows = [encode_prompt(model, text) for text in texts]
    length = min(map(len, rows))
    return torch.tensor([row[:length] for row in rows])


def _matched(
    model: LanguageModel,
    pack: SteeringPack,
    spec: SteeringSpec,
    blocks: Sequence[int],
    ids: Int[Tensor, "text pos"],
) -> dict[int, Tensor]:
    from affectlens.models.hooking.hooks import writing

    n, found = len(ids), dict[int, Tensor]()

    def match(block: int, hidden: Tensor) -> Tensor:
        steered, plain = hidden[:n], hidden[n:]
        vector = (steered.float() - plain.float()).mean((0, 1))
        found[block] = vector.cpu()
        return torch.cat([steered, plain + vector.to(plain.dtype)])

    writers = {
        WritePoint(block, "resid_post"): lambda hidden, block=block: match(block, hidden)
        for block in blocks
    }
    with pack.steer(model, [spec] * n + ["none"] * n), writing(model.anatomy, writers):
        model.hf(input_ids=torch.cat([ids, ids]), use_cache=False)
    return found


def _adding(model: LanguageModel, vectors: Mapping[int, Tensor]) -> AbstractContextManager[None]:
    from affectlens.models.hooking.hooks import writing

    def add(vector: Tensor, hidden: Tensor) -> Tensor:
        return hidden + vector.to(hidden.device, hidden.dtype)

    return writing(
        model.anatomy,
        {
            WritePoint(block, "resid_post"): lambda hidden, vector=vector: add(vector, hidden)
            for block, vector in vectors.items()
        },
    )
