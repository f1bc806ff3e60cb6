"""RePS: prefer the emotion's reply while it is steered, the other one while it is taken out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from affectlens.core.errors import DataError
from affectlens.steering.operators.affine import unit
from affectlens.steering.refine.log_probabilities import Additions, added, reply_log_probabilities
from affectlens.steering.refine.objectives.objective import Objective
from affectlens.steering.refine.replies import Group

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.refine.settings import RefineSettings


def reps(
    model: LanguageModel,
    groups: Sequence[Group],
    additions: Additions,
    settings: RefineSettings,
    rng: random.Random,
) -> Float[Tensor, ""]:
    """Loss of reference-free preference, mean over groups and emotions.

    ``c`` is the reply in an emotion, ``r`` that of the same group in another one, drawn anew at
    every step: both answer one prompt, so that only the emotion tells them apart. With ``|·|`` in
    tokens, ``Φ`` the model steered at a strength drawn from ``settings.strengths``, ``∅`` the model
    whose hidden states have lost what they hold along the vectors, and ``p`` the model as it is::

        Δ⁺ = β⁺/|c| log p_Φ(c) - 1/|r| log p_Φ(r),   β⁺ = max(log p(r) - log p(c), 1)
        Δ⁻ = β⁻/|r| log p_∅(r) - 1/|c| log p_∅(c),   β⁻ = max(log p(c) - log p(r), 1)
        loss = - log σ(Δ⁺) - log σ(Δ⁻)

    Raises:
        DataError: If there is one emotion only.

    Source: Wu et al., "Improved Representation Steering for Language Models" (arXiv 2505.20809).
    """
    k = len(groups[0])
    if k < 2:
        raise DataError("RePS prefers one emotion's replies to another's; give two emotions.")
    shift = rng.randrange(1, k)
    pairs = [(*group, *(group[(e + shift) % k] for e in range(k))) for group in groups]
    strength = torch.tensor([rng.choice(settings.strengths) for _ in range(k)]).repeat(2)

    def sums(
        of: Sequence[Group], change: Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]] | None
    ) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
        changes = {} if change is None else {at: change(v) for at, v in additions.items()}
        said, keep = reply_log_probabilities(model, of, changes, settings.max_reply_tokens)
        return said.sum(1), keep.sum(1).to(said.dtype)

    def halves(rows: Float[Tensor, " row"]) -> tuple[Tensor, Tensor]:
        chosen, rejected = rows.view(len(groups), 2, k).unbind(1)
        return chosen, rejected

    with torch.no_grad():
        plain = sums(groups, None)[0].view(len(groups), k)
        ahead = plain.roll(-shift, 1) - plain  # log p(r) - log p(c)
    steered, count = sums(pairs, lambda v: added(v, strength))
    (chosen, rejected), (long, other) = halves(steered), halves(count)
    towards = ahead.clamp_min(1) * chosen / long - rejected / other
    chosen, rejected = halves(sums(pairs, nulled)[0])
    away = (-ahead).clamp_min(1) * rejected / other - chosen / long
    return -(logsigmoid(towards) + logsigmoid(away)).mean()


def nulled(vectors: Float[Tensor, "emotion d_model"]) -> Callable[[Tensor, Tensor], Tensor]:
    """Take out of each row what it holds along its emotion's vector, if it points that way."""
    units = unit(vectors)

    def change(hidden: Tensor, member: Tensor) -> Tensor:
        own = units.to(hidden.device)[member % len(units)]
        along = torch.einsum("rpd,rd->rp", hidden.float(), own).relu()
        return hidden - (along[..., None] * own[:, None]).to(hidden.dtype)

    return change


REPS = Objective("reps", "the emotion's reply preferred to another's, steered and taken out", reps)
